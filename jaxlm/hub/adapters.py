"""Low-rank adapters in PEFT's layout: adapter_config.json and adapter_model.safetensors.

A module of theirs with an adapter adds x @ A.T @ B.T * scale, A (r, in) and B (out, r), whatever
the layout of its weight; scale is lora_alpha / r, with rsLoRA lora_alpha / sqrt(r). One module may
hold several kernels of ours, such as a fused projection to queries, keys and values.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float

from jaxlm.artifact import Loaded, Placement
from jaxlm.config import ModelConfig
from jaxlm.files import folder_in_place
from jaxlm.hub.adapter_configs import (
    CONFIG,
    TASKS,
    adapted_config,
    pattern_value,
    refuse_options,
    task_head,
)
from jaxlm.hub.configs import family_of
from jaxlm.hub.directory import (
    ExchangeError,
    is_present,
    read_tokenizer,
    reference_config,
    special_ids,
    with_padding,
    write_json,
)
from jaxlm.hub.exchange import refuse, rows_for
from jaxlm.hub.tables import Family, TensorRow
from jaxlm.hub.weights import WeightFiles, read_json_file, save_tensors
from jaxlm.models.parameters import (
    adapter_paths,
    is_kernel,
    merge_lora,
    output_dim,
    shapes_by_path,
)
from jaxlm.tokenizer import Tokenizer

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
HASHES = "jaxlm_base"  # in the metadata of the weights: the hashes of the base
# PEFT saves these modules whole, and wraps them unasked.
HEADS = ("classifier", "score", "qa_outputs")


def is_adapter_directory(path: Path) -> bool:
    """Whether a directory holds adapters in PEFT's layout."""
    return (path / CONFIG).is_file()


def adapted_base(path: Path) -> tuple[str, str | None]:
    """The name of the base of a directory of adapters, empty where none is told; its revision."""
    told = read_json_file(path / CONFIG)
    name, revision = told.get("base_model_name_or_path") or "", told.get("revision")
    if not isinstance(name, str) or not isinstance(revision, str | None):
        raise ExchangeError(f"base_model_name_or_path of {path / CONFIG} must be a name")
    return name, revision


def write_adapters(
    loaded: Loaded, own: Mapping[str, Any], base: str, hashes: Mapping[str, str], path: Path
) -> None:
    """Write a model's own weights by path, adapters apart, as a directory of adapters, or nothing.

    Beside PEFT's two files stand the tokenizer, and a config.json that tells labels and head; the
    hashes of the base are metadata of the weights.

    Raises: JaxlmError where the layout has no place for the weights, WriteError.
    """
    config = loaded.config
    family = family_of(config, loaded.origin.get("model_type"))
    # PEFT has no adapter beside a module that is saved whole.
    own = flatten_dict(merge_lora(unflatten_dict(dict(own), sep="/")), sep="/")
    shapes = shapes_by_path(config)
    rows, faults = rows_for(family, config, shapes)
    tensors: dict[str, np.ndarray] = {}
    ranks: dict[str, tuple[int, float]] = {}  # rank and alpha of each module
    saved: set[str] = set()
    written: set[str] = set()
    modules = {module_of(row, family, config) for row in rows}
    for row in rows:
        module = module_of(row, family, config)
        held = [path for path in row.ours if path in own]
        beside = [path for path in row.ours if adapter_paths(path)[0] in own]
        written |= {*held, *(part for path in beside for part in adapter_paths(path))}
        if beside:
            down, up, scale = joined_adapters(row, own, shapes)
            tensors |= {f"{module}.lora_A.weight": down.T, f"{module}.lora_B.weight": up.T}
            ranks[module] = (len(down.T), alpha_of(scale, len(down.T)))
        if held:
            name = their_name(row, family, config)
            inside = module not in HEADS and any(m.startswith(f"{module}.") for m in modules)
            if len(held) < len(row.ours) or inside or module in ranks:
                faults.append(f"{name} has no place in it")
                continue
            tensors[name] = row.layout.write([np.asarray(own[path]) for path in row.ours])
            first = module.partition(".")[0]
            saved.add(first if first in HEADS else module)
    faults += [f"{path} has no place in it" for path in own if path not in written]
    refuse(faults, "PEFT's layout cannot hold what the run trained; export the model whole")
    if not ranks:
        raise ExchangeError("the run has no adapters (finetune.lora_rank): export the model whole")
    rank, alpha = max(set(ranks.values()), key=list(ranks.values()).count)
    others = {module: pair for module, pair in ranks.items() if pair != (rank, alpha)}
    names = {pair: short_names([m for m in others if others[m] == pair], modules)
             for pair in others.values()}  # fmt: skip
    told = {
        "peft_type": "LORA",
        "task_type": next((k for k, v in TASKS.items() if v == task_head(config)), None),
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": short_names(list(ranks), modules),
        "rank_pattern": {name: pair[0] for pair in names for name in names[pair]},
        "alpha_pattern": {name: pair[1] for pair in names for name in names[pair]},
        "modules_to_save": sorted(saved) or None,
        "fan_in_fan_out": family.name == "gpt2",
        "bias": "none",
    }
    theirs = reference_config(loaded, family, special_ids(loaded))
    with folder_in_place(path) as folder:
        write_json(folder / CONFIG, told)
        metadata = {"format": "pt", HASHES: json.dumps(dict(hashes))}
        tensors = {PREFIX + name: np.ascontiguousarray(t) for name, t in tensors.items()}
        save_tensors(tensors, folder / WEIGHTS[0], metadata)
        write_json(folder / "config.json", theirs)
        if is_present(loaded.tokenizer):
            with_padding(loaded.tokenizer, theirs["pad_token_id"]).save(folder)


def their_name(row: TensorRow, family: Family, config: ModelConfig) -> str:
    """The name of a row's tensor in their model; the class without a head has no prefix."""
    return row.theirs.removeprefix(family.prefix) if config.head == "none" else row.theirs


def module_of(row: TensorRow, family: Family, config: ModelConfig) -> str:
    """The module that holds a row's tensor; the tensor itself where it is none of a layer's."""
    return re.sub(r"\.(weight|bias)$", "", their_name(row, family, config))


def joined_adapters(
    row: TensorRow, own: Mapping[str, Any], shapes: Mapping[str, Any]
) -> tuple[Float[np.ndarray, "I R"], Float[np.ndarray, "R O"], float]:
    """One adapter for a module of several kernels: theirs side by side, zeros between them."""
    adapted = [path for path in row.ours if adapter_paths(path)[0] in own]
    parts = {path: [np.asarray(own[part]) for part in adapter_paths(path)] for path in adapted}
    down = np.concatenate([a for a, _, _ in parts.values()], axis=1)
    up = np.zeros((down.shape[1], sum(shapes[path].shape[1] for path in row.ours)), down.dtype)
    i = j = 0
    for path in row.ours:
        width = shapes[path].shape[1]
        if path in parts:
            b = parts[path][1]
            up[i : i + len(b), j : j + width] = b
            i += len(b)
        j += width
    return down, up, float(parts[adapted[0]][2])


def alpha_of(scale: float, rank: int) -> float:
    """The lora_alpha that gives a scale of fp32 back: a whole number where one does."""
    alpha = float(Fraction(scale) * rank)
    whole = round(alpha)
    return whole if np.float32(whole / rank) == np.float32(scale) else alpha


def short_names(chosen: Collection[str], modules: Collection[str]) -> list[str]:
    """The shortest ends of names that, among all modules, choose these alone."""
    found = set()
    for name in chosen:
        parts = name.split(".")
        ends = [".".join(parts[i:]) for i in reversed(range(len(parts)))]
        for end in ends:
            if all(m in chosen for m in modules if m == end or m.endswith(f".{end}")):
                found.add(end)
                break
    return sorted(found)


def read_adapters(
    path: Path, base: Loaded, placement: Placement
) -> tuple[dict[str, Any], ModelConfig, dict[str, str], Tokenizer]:
    """The own weights of a directory of adapters by path, adapters apart, and the config of the
    model that they make of the base; the hashes of the base where they are told; the tokenizer.

    Raises: JaxlmError, with each option that is not supported and each tensor without a place.
    """
    told = read_json_file(path / CONFIG)
    refuse_options(told, path)
    files = WeightFiles(path, WEIGHTS)
    names = {name.removeprefix(PREFIX): name for name in files.keys()}  # noqa: SIM118
    tensors = {name: files.read(full) for name, full in names.items()}
    family = family_of(base.config, base.origin.get("model_type"))
    config = adapted_config(path, told, base, family, tensors)
    family = family_of(config, family.name)
    rows, faults = rows_for(family, config, shapes_by_path(config))
    leaves = adapted_leaves(told, tensors, rows, shapes_by_path(config),
                            lambda row: their_name(row, family, config), faults)  # fmt: skip
    # PEFT saves a table that is the head too, but changes what it looks up alone.
    tied = config.head == "lm" and config.tie_embeddings
    faults += [f"{name} is also the head, which is left as it is" for name in leaves
               if tied and output_dim(name) == 0]  # fmt: skip
    refuse(faults, f"the adapters of {path} do not fit a {family.name} of this config")
    hashes = files.metadata.get(HASHES)
    tokenizer = read_tokenizer(path, config.vocab_size)
    return (
        {name: placement.put(name, leaf) for name, leaf in leaves.items()},
        config,
        {} if hashes is None else json.loads(hashes),
        tokenizer if is_present(tokenizer) else base.tokenizer,
    )


def adapted_leaves(
    told: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    rows: Collection[TensorRow],
    shapes: Mapping[str, Any],
    name_of: Callable[[TensorRow], str],
    faults: list[str],
) -> dict[str, np.ndarray]:
    """Leaves of ours, adapters apart, from tensors under their names; faults are added."""
    leaves: dict[str, np.ndarray] = {}
    left = dict(tensors)
    for row in rows:
        name = name_of(row)
        module = name.removesuffix(".weight")
        if name in left:
            parts = row.layout.read(left.pop(name))
            leaves |= dict(zip(row.ours, parts, strict=True))
            if any(part.shape != shapes[p].shape for p, part in zip(row.ours, parts, strict=True)):
                faults.append(f"{name} does not have the shape that {row.ours[0]} has")
        pair = [left.get(f"{module}.lora_{part}.weight") for part in "AB"]
        if module == name or pair[0] is None or pair[1] is None:
            continue
        for part in "AB":
            del left[f"{module}.lora_{part}.weight"]
        down, up = pair[0].T, pair[1].T
        widths = [shapes[path].shape[-1] for path in row.ours]
        if not all(map(is_kernel, row.ours)):
            faults.append(f"an adapter beside {module} is not supported")
            continue
        rank = pattern_value(told, "rank_pattern", module) or told.get("r", 8)
        if down.shape != (shapes[row.ours[0]].shape[0], rank) or up.shape != (rank, sum(widths)):
            faults.append(f"the adapter of {module} has the shapes {pair[0].shape} and "
                          f"{pair[1].shape}, which are not of rank {rank} there")  # fmt: skip
            continue
        alpha = pattern_value(told, "alpha_pattern", module) or told.get("lora_alpha", 8)
        scale = alpha / (rank**0.5 if told.get("use_rslora") else rank)
        for path, part in zip(row.ours, np.split(up, np.cumsum(widths)[:-1], axis=1), strict=True):
            used = (part != 0).any(axis=1)  # the rest adds nothing, and belongs to a neighbour
            if used.any():
                a, b, constant = adapter_paths(path)
                leaves |= {a: down[:, used], b: part[used], constant: np.array(scale, np.float32)}
    faults += [f"{name} has no place in the model" for name in sorted(left)]
    faults += [f"{path} holds values that are not finite" for path, leaf in leaves.items()
               if not np.isfinite(leaf).all()]  # fmt: skip
    return leaves
