"""The base model that a run with frozen weights stands on: where it lies, and its hash.

Such a run keeps the weights that the model it started from lacks or has otherwise, and knows that
model by a hash of the others. A kernel that adapters were merged into has the hash of what it was
made of, since the last bits of a product differ from machine to machine.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open

from jaxlm.artifact import Loaded, Placement
from jaxlm.checkpoint import CheckpointError, DamagedError, read_meta, step_folders
from jaxlm.config import Config, ModelConfig, build_config, to_mapping
from jaxlm.config.schema import fields_with_role
from jaxlm.hub.weights import save_tensors
from jaxlm.models import shapes_by_path
from jaxlm.models.parameters import adapter_paths, is_kernel, merge_lora

BASE_DTYPES = ("float32", "bfloat16", "float16")  # those that a base may be loaded in


@dataclass(frozen=True)
class BaseModel:
    """What a run with frozen weights tells of its base.

    `own` are the paths of the weights that it has itself, `hashes` those of the base's others by
    type. The base lies at `written`, the run's finetune.init_from; where that is a directory also
    at `absolute`, and at `relative` to the run's folder.
    """

    config: ModelConfig
    own: frozenset[str]
    hashes: Mapping[str, str]
    written: str
    absolute: str | None = None
    relative: str | None = None

    def to_meta(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, beside the config and the own paths."""
        places = {"written": self.written, "absolute": self.absolute, "relative": self.relative}
        return places | {"hashes": dict(self.hashes)}

    def at(self, written: str, found: Path, run: Path) -> "BaseModel":
        """The same base of a run in the folder `run`, found in a place, or on the hub."""
        absolute = relative = None
        if found.is_dir():
            absolute = str(found.absolute())
            relative = os.path.relpath(absolute, run.absolute())
        places = {"written": written, "absolute": absolute, "relative": relative}
        return dataclasses.replace(self, **places)

    def places(self, run: Path) -> list[Path]:
        """Where the base may lie, for a run in this folder: what is there of it, the best first."""
        if self.absolute is None:
            return [Path(self.written)]
        found = [Path(self.absolute), Path(self.written), run / str(self.relative)]
        return list(dict.fromkeys(path for path in found if path.is_dir()))

    def fault(self, base: Loaded) -> str | None:
        """In what a model is not this base; None if it is."""
        shapes = shapes_by_path(self.config)
        leaves: dict[str, Any] = flatten_dict(base.params, sep="/")
        under = {name: leaves.get(name) for name in shapes if name not in self.own}
        for name, leaf in under.items():
            if leaf is None or leaf.shape != shapes[name].shape:
                return f"{name} differs"
        for name in fields_with_role(ModelConfig, "structure"):  # fine-tuning does not change it
            if getattr(self.config, name) != getattr(base.config, name):
                return f"model.{name} differs"
        dtype = str(next(iter(leaves.values())).dtype)
        if dtype in self.hashes and weights_hash(under, dtype, base.merged) != self.hashes[dtype]:
            return "a weight differs"
        return None


def base_from_meta(meta: Mapping[str, Any]) -> BaseModel | None:
    """The base that a checkpoint stands on; None where it holds all weights."""
    if meta.get("base") is None:
        return None
    return BaseModel(build_config(meta["config"]).model, frozenset(meta["trained"]), **meta["base"])


def newest_base(checkpoints: Path) -> BaseModel | None:
    """The base of the newest checkpoint in a folder that tells; None where it has none."""
    for folder in reversed(step_folders(checkpoints)):
        with suppress(DamagedError):
            return base_from_meta(read_meta(folder))
    return None


def weights_hash(
    leaves: Mapping[str, Any], dtype: str, merged: Mapping[str, Mapping[str, str]] | None = None
) -> str:
    """A hash of weights by path, in a type; of `merged` ones the hashes are known."""
    digest = xxhash.xxh3_128()
    for name in sorted(leaves):
        digest.update(name.encode())
        known = (merged or {}).get(name, {}).get(dtype)
        if known is None:
            with np.errstate(over="ignore"):  # what is infinite in float16 is not loaded in it
                array = np.asarray(leaves[name]).astype(dtype, copy=False)
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        else:
            digest.update(known.encode())
    return digest.hexdigest()


def base_hashes(
    leaves: Mapping[str, Any], merged: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, str]:
    """The hash of weights in each type that they can be loaded in: all, or their own alone."""
    dtype = str(next(iter(leaves.values())).dtype)
    dtypes = BASE_DTYPES if dtype == "float32" else (dtype,)
    return {dtype: weights_hash(leaves, dtype, merged) for dtype in dtypes}


def merged_params(leaves: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """The params with all adapters merged, and of the kernels changed the hashes of their parts."""
    merged = {}
    for kernel in filter(is_kernel, leaves):
        parts = [kernel, *adapter_paths(kernel)]
        if parts[1] in leaves:
            merged[kernel] = base_hashes({part: leaves[part] for part in parts})
    return merge_lora(unflatten_dict(dict(leaves), sep="/")), merged


def open_base(
    below: BaseModel,
    run: Path,
    load: Callable[[Path], Loaded],
    given: str | Path | Loaded | None = None,
) -> tuple[Loaded, Path]:
    """The base of a run in this folder, and where it was found; `given` is the place or model told.

    `load` opens a model.

    Raises: CheckpointError where it is not there, or is another model.
    """
    help = "name where it is now: base= of jaxlm.load, --base of jaxlm export, or, to go on "
    help += "training, finetune.init_from"
    places = below.places(run) if given is None else [Path(below.written)]
    places = [Path(given)] if isinstance(given, str | Path) else places
    if not places:
        raise CheckpointError(
            f"{run} was trained on {below.written}, which is neither at {below.absolute} nor at "
            f"the same place beside the run; bring it back, or {help}"
        )
    faults = []
    for place in places:
        try:
            found = given if isinstance(given, Loaded) else load(place)
        except DamagedError as error:  # of the base, not of the run
            raise CheckpointError(f"{run} was trained on {place}: {error}") from None
        fault = below.fault(found)
        if fault is None:
            return found, place
        faults.append(f"{place} is another model: {fault}")
    raise CheckpointError(
        f"{run} was trained on {below.written}, but {faults[0]}; bring that model back, or {help}"
    )


def write_own_weights(
    file: Path, leaves: Mapping[str, Any], config: Config, base: BaseModel, meta: Mapping[str, Any]
) -> None:
    """Write a run's own weights, and what it tells of its base, as one .safetensors file."""
    told = {
        "config": json.dumps(to_mapping(config)),
        "base": json.dumps(base.hashes),
        "step": json.dumps(meta.get("step")),
        "tokenizer_config": json.dumps(meta["tokenizer"]["config"]),
        "init_from": base.written,
    }
    save_tensors({name: np.asarray(leaf) for name, leaf in leaves.items()}, file, told)


def read_own_weights(
    file: Path, placement: Placement
) -> tuple[dict[str, Any], Config, BaseModel, dict[str, Any]]:
    """Weights, config and base of a file of `write_own_weights`, and the tokenizer's config and
    the step. Raises: CheckpointError."""
    try:
        with safe_open(file, "numpy") as opened:
            told = opened.metadata() or {}
            leaves = {name: placement.put(name, opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118
        config = build_config(json.loads(told["config"]))
        hashes = json.loads(told["base"])
        more = {name: json.loads(told[name]) for name in ("tokenizer_config", "step")}
        base = BaseModel(config.model, frozenset(leaves), hashes, told["init_from"])
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{file} is no file of trained weights: {error}") from None
    return leaves, config, base, more


def on_base(base: Loaded, leaves: Mapping[str, Any], config: ModelConfig) -> Any:
    """The params of a run's own weights on its base, adapters merged; see `merged_params`."""
    under = flatten_dict(base.params, sep="/")
    names = shapes_by_path(config)
    return merged_params({n: under[n] for n in names if n not in leaves} | dict(leaves))
