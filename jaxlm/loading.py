"""Open a run, a checkpoint or a Hugging Face directory as a Loaded, and write one as either."""

import json
import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import xxhash
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open

from jaxlm import checkpoint
from jaxlm.artifact import FIRST_DEVICE, Loaded, Placement, check_loaded
from jaxlm.checkpoint import (
    PARAMS,
    CheckpointError,
    DamagedError,
    is_checkpoint,
    read_meta,
    restore_items,
    saved_steps,
    step_folders,
)
from jaxlm.config import (
    Config,
    DataConfig,
    ModelConfig,
    RunConfig,
    build_config,
    to_mapping,
    to_yaml,
)
from jaxlm.config.schema import fields_with_role
from jaxlm.files import WriteError, as_path, folder_in_place
from jaxlm.hub import is_reference, read_directory, write_directory
from jaxlm.hub.weights import download, save_tensors
from jaxlm.models import make_model, param_shapes
from jaxlm.models.parameters import add_lora, is_adapter, merge_lora
from jaxlm.nn.int8 import holds_int8
from jaxlm.tokenizer import AbsentTokenizer, Tokenizer

OwnModel = nn.Module | Callable[[ModelConfig], nn.Module] | None

BASE_DTYPES = ("float32", "bfloat16", "float16")  # those that a base may be loaded in
HUB_ID = r"[\w.-]+(/[\w.-]+)?"


def load(
    path: str | Path,
    step: int | None = None,
    revision: str | None = None,
    *,
    model: OwnModel = None,
    trained: str | Path | None = None,
    sharding: jax.sharding.Sharding | Callable[[str], jax.sharding.Sharding] | None = None,
    dtype: Any = jnp.float32,
    accept: Collection[str] = (),
) -> Loaded:
    """A run (its best checkpoint, else its last; `step` chooses one), a checkpoint, or a model of
    Hugging Face: a directory, or a hub id such as openai-community/gpt2 with its `revision`.

    Params come as `dtype`, one tensor at a time, straight to where `sharding` says: one for all, or
    a function of a parameter's path; default: the first device. Adapters are merged. `model` is the
    own module that a run of `fit` trained, or the function that made it; `trained` is a file of
    `write_trained`, put onto the model. `accept` names attributes of a config.json that are taken
    at your own risk, though their meaning is unknown here.
    Raises JaxlmError where there is nothing to load, or something that is damaged or unknown.
    """
    placement = Placement(sharding, dtype)
    loaded = load_placed(as_path("path", path), step, revision, placement, model, accept)
    return loaded if trained is None else with_trained(loaded, Path(trained), placement)


def load_placed(
    path: Path,
    step: int | None,
    revision: str | None,
    placement: Placement,
    model: OwnModel,
    accept: Collection[str] = (),
) -> Loaded:
    if not path.is_dir():
        if path.exists() or not re.fullmatch(HUB_ID, str(path)):
            raise CheckpointError(
                f"there is no directory {path}; give a run, a checkpoint or a Hugging Face model"
            )
        return read_directory(download(str(path), revision), placement, accept)
    if is_checkpoint(path):
        if step is not None:
            raise CheckpointError(f"{path} is one checkpoint; give its run to choose a step")
        return load_checkpoint(path, placement, model)
    if not (path / "config.yaml").exists() and is_reference(path):
        return read_directory(path, placement, accept)
    if accept:
        raise CheckpointError(f"accept is for directories of Hugging Face's, and {path} is none")
    folder = path / "checkpoints"
    steps = saved_steps(folder)
    if not steps:
        what = "has no checkpoint yet" if (path / "config.yaml").exists() else "holds no model"
        what = "has no checkpoint that is whole" if step_folders(folder) else what
        raise CheckpointError(
            f"{path} {what}; give a run directory, a checkpoint in one, or a directory with a "
            "config.json of Hugging Face's"
        )
    if step is not None and step not in steps:
        raise CheckpointError(f"{path} has no step {step}; it has {', '.join(map(str, steps))}")
    wanted = best_first(folder, steps) if step is None else [step]
    while True:
        try:
            return load_checkpoint(folder / str(wanted[0]), placement, model)
        except DamagedError as error:
            if len(wanted) == 1:
                raise
            wanted.pop(0)
            print(f"{error}; step {wanted[0]} is loaded in its place", file=sys.stderr)


def best_first(folder: Path, steps: list[int]) -> list[int]:
    """The steps, that with the most merit first, then the newest; damaged ones are left out.

    Raises: DamagedError where none is whole, as far as meta tells.
    """
    merits: dict[int, float | None] = {}
    problem = None
    for step in reversed(steps):
        try:
            merits[step] = read_meta(folder / str(step)).get("merit")
        except DamagedError as error:
            problem = problem or error
    if problem is not None:
        if not merits:
            raise problem
        print(f"{problem}; step {next(iter(merits))} is there", file=sys.stderr)
    measured = {step: merit for step, merit in merits.items() if merit is not None}
    best = [max(reversed(measured), key=measured.__getitem__)] if measured else []
    return best + [step for step in merits if step not in best]


def load_checkpoint(path: Path, placement: Placement, model: OwnModel = None) -> Loaded:
    meta = read_meta(path)
    run = build_config(meta["config"])
    config, tokenizer = run.model, meta["tokenizer"]
    if tokenizer is None:
        tokenizer = AbsentTokenizer(f"none stood beside the weights of {run.run.name}")
    else:
        tokenizer = Tokenizer.from_saved(tokenizer)
    if model is None:
        own = next((part for part in run.run.own if part.startswith("model ")), None)
        if own is not None:
            raise CheckpointError(f"{path} was trained with an own {own}; give it as model")
        module = make_model(config)
    else:
        module = model if isinstance(model, nn.Module) else model(config)
    params = merge_lora(read_saved(path, run, placement, module))
    origin = {name: meta.get(name) for name in ("step", "val_loss", "data")}
    origin |= {"source": run.run.name} | meta.get("origin", {})
    known = {name: value for name, value in origin.items() if value is not None}
    return Loaded(module, params, tokenizer, config, known, run)


def read_saved(
    checkpoint: Path, run: Config, placement: Placement, module: nn.Module | None = None
) -> Any:
    """The params of a checkpoint as they were trained, adapters apart."""
    if module is None:
        shapes = param_shapes(run.model)
    else:
        ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        shapes = jax.eval_shape(module.init, jax.random.key(0), ids)["params"]
    tuned = run.finetune
    if tuned.lora_rank is not None:
        rank, targets = tuned.lora_rank, tuned.lora_targets
        shapes = jax.eval_shape(
            lambda params, key: add_lora(params, rank, 1.0, targets, key),
            shapes,
            jax.random.key(0),
        )
    leaves: dict[str, Any] = flatten_dict(shapes, sep="/")
    target = {
        name: jax.ShapeDtypeStruct(leaf.shape, placement.dtype, sharding=placement.of(name))
        for name, leaf in leaves.items()
    }
    return restore_items(checkpoint, {PARAMS: unflatten_dict(target, sep="/")})[PARAMS]


def write_trained(run: str | Path, file: str | Path, step: int | None = None) -> None:
    """Write what a run trained, adapters or some of the weights, as one .safetensors file.

    `jaxlm.load(BASE, trained=FILE)` puts it onto the model that the run started from.
    CheckpointError where the run trained all weights.
    """
    folder = Path(run) / "checkpoints"
    steps = saved_steps(folder)
    if not steps:
        raise CheckpointError(f"{run} has no checkpoint; give a run directory")
    checkpoint = folder / str(best_first(folder, steps)[0] if step is None else step)
    meta = read_meta(checkpoint)
    if meta.get("trained") is None:
        raise CheckpointError(f"{run} trained all of its weights: export it whole")
    config = build_config(meta["config"])
    leaves: dict[str, Any] = flatten_dict(read_saved(checkpoint, config, FIRST_DEVICE), sep="/")
    kept = {
        name: np.asarray(leaf)
        for name, leaf in leaves.items()
        if name in meta["trained"] or is_adapter(name)
    }
    base = {name: leaf for name, leaf in leaves.items() if name not in kept}
    told = {
        "config": json.dumps(meta["config"]),
        "base": json.dumps({dtype: weights_hash(base, dtype) for dtype in BASE_DTYPES}),
        "step": json.dumps(meta.get("step")),
        "tokenizer_config": json.dumps(meta["tokenizer"]["config"]),
        "init_from": str(config.finetune.init_from),
    }
    save_tensors(kept, Path(file), told)


def weights_hash(leaves: dict[str, Any], dtype: str) -> str:
    """A hash of weights by path, in a type."""
    digest = xxhash.xxh3_128()
    for name in sorted(leaves):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(np.asarray(leaves[name]).astype(dtype)).view(np.uint8))
    return digest.hexdigest()


def with_trained(base: Loaded, file: Path, placement: Placement) -> Loaded:
    """The model of a file of `write_trained`, on the weights that it was trained from."""
    try:
        with safe_open(file, "numpy") as opened:
            told = opened.metadata() or {}
            kept = {name: placement.put(name, opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118
        run = build_config(json.loads(told["config"]))
        hashes, step = json.loads(told["base"]), json.loads(told["step"])
        tokenizer_config = json.loads(told["tokenizer_config"])
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{file} is no file of trained weights: {error}") from None
    config = run.model
    leaves: dict[str, Any] = flatten_dict(base.params, sep="/")
    shapes: dict[str, Any] = flatten_dict(param_shapes(config), sep="/")
    under = {name: leaves.get(name) for name in shapes if name not in kept}
    wrong = [n for n, leaf in under.items() if leaf is None or leaf.shape != shapes[n].shape]
    fields = fields_with_role(ModelConfig, "structure")  # what fine-tuning does not change
    wrong += [f"model.{n}" for n in fields if getattr(config, n) != getattr(base.config, n)]
    dtype = placement.dtype.name
    if not wrong and dtype in hashes and weights_hash(under, dtype) != hashes[dtype]:
        wrong = ["a weight"]
    if wrong:
        raise CheckpointError(
            f"{file} was trained on {told['init_from']}, not on this model: {wrong[0]} differs"
        )
    tokenizer = Tokenizer(base.tokenizer.backend, tokenizer_config, base.tokenizer.source)
    params = merge_lora(unflatten_dict(under | kept, sep="/"))
    # Of the base alone are what it was measured at, and on what.
    told_of_base = {k: v for k, v in base.origin.items() if k not in ("val_loss", "data")}
    origin = told_of_base | {"source": run.run.name, "step": step}
    return Loaded(make_model(config), params, tokenizer, config, origin, run)


def export(loaded: Loaded, directory: str | Path, dtype: str | None = None) -> None:
    """Write a model as a Hugging Face directory: see `jaxlm.hub.write_directory`."""
    check_loaded(loaded)
    if holds_int8(loaded.params):
        raise WriteError("weights in int8 are for generation alone; export the model as loaded")
    write_directory(loaded, as_path("directory", directory), dtype)


def write_run(loaded: Loaded, directory: str | Path) -> None:
    """Write a model as a run directory without metrics, or nothing at all."""
    path = Path(directory)
    config = Config(
        run=RunConfig(name=path.name, dir=str(path)),
        model=loaded.config,
        data=DataConfig(seq_len=min(DataConfig.seq_len, loaded.config.max_seq_len)),
    ).resolved()
    tokenizer = loaded.tokenizer
    absent = isinstance(tokenizer, AbsentTokenizer)
    meta = {
        "step": None,  # it was not trained here
        "config": to_mapping(config),
        "tokenizer": None if absent else tokenizer.saved(),
        "data": None,
        "val_loss": None,
        "origin": dict(loaded.origin),
    }
    with folder_in_place(path) as folder:
        (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        if not absent:
            tokenizer.save(folder)
        checkpoint.write_params(folder / "checkpoints" / "0", loaded.params, meta)
