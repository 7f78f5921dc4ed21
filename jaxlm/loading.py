"""Open a run, a checkpoint, a Hugging Face directory or adapters, and write a model as either."""

import re
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlm.artifact import Loaded, Placement, check_loaded
from jaxlm.base_model import (
    BaseModel,
    base_from_meta,
    merged_params,
    on_base,
    open_base,
    read_own_weights,
)
from jaxlm.checkpoint import (
    PARAMS,
    CheckpointError,
    DamagedError,
    best_first,
    is_checkpoint,
    read_meta,
    restore_items,
    saved_steps,
    step_folders,
    write_params,
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
from jaxlm.files import WriteError, as_path, folder_in_place
from jaxlm.hub import is_reference, read_directory, write_directory
from jaxlm.hub.adapters import (
    adapted_base,
    is_adapter_directory,
    read_adapters,
)
from jaxlm.hub.weights import download
from jaxlm.models import make_model, param_shapes
from jaxlm.models.parameters import add_lora
from jaxlm.nn.int8 import holds_int8
from jaxlm.tokenizer import AbsentTokenizer, Tokenizer, TokenizerError
from jaxlm.tokenizer.chat import knows_dialogues

OwnModel = nn.Module | Callable[[ModelConfig], nn.Module] | None

HUB_ID = r"[\w.-]+(/[\w.-]+)?"


def load(
    path: str | Path,
    step: int | None = None,
    revision: str | None = None,
    *,
    model: OwnModel = None,
    base: str | Path | Loaded | None = None,
    trained: str | Path | None = None,
    sharding: jax.sharding.Sharding | Callable[[str], jax.sharding.Sharding] | None = None,
    dtype: Any = jnp.float32,
    accept: Collection[str] = (),
) -> Loaded:
    """A run (its best checkpoint, else its last; `step` chooses one), a checkpoint, or a model of
    Hugging Face: a directory, or a hub id such as openai-community/gpt2 with its `revision`; or a
    directory of adapters in PEFT's layout.

    Params come as `dtype`, one tensor at a time, straight to where `sharding` says: one for all, or
    a function of a parameter's path; default: the first device. Adapters are merged. `model` is the
    own module that a run of `fit` trained, or the function that made it. Adapters, and a run with
    frozen weights, stand on a model that is looked for where it was; `base` is where it lies now,
    or that model. `trained` is a file of `write_trained`, put onto the model at `path`. `accept`
    names attributes of a config.json that are taken at your own risk, though their meaning is
    unknown here.
    Raises JaxlmError where there is nothing to load, or something that is damaged or unknown.
    """
    placement = Placement(sharding, dtype)
    loaded = load_placed(as_path("path", path), placement, step, revision, model, accept, base)
    tell_templates(path, loaded.tokenizer)
    return loaded if trained is None else with_trained(loaded, Path(trained), placement)


def tell_templates(path: str | Path, tokenizer: Tokenizer) -> None:
    """Print that no chat template can be used: the model is still good for all but chat."""
    try:
        if not isinstance(tokenizer, AbsentTokenizer):
            knows_dialogues(tokenizer)
    except TokenizerError as error:
        print(f"{path}: {error}", file=sys.stderr)


def load_placed(
    path: Path,
    placement: Placement,
    step: int | None = None,
    revision: str | None = None,
    model: OwnModel = None,
    accept: Collection[str] = (),
    base: str | Path | Loaded | None = None,
) -> Loaded:
    if not path.is_dir():
        if path.exists() or not re.fullmatch(HUB_ID, str(path)):
            raise CheckpointError(
                f"there is no directory {path}; give a run, a checkpoint or a Hugging Face model"
            )
        path = download(str(path), revision)
    if is_checkpoint(path):
        if step is not None:
            raise CheckpointError(f"{path} is one checkpoint; give its run to choose a step")
        return load_checkpoint(path, placement, model, base)
    if is_adapter_directory(path):
        return load_adapters(path, placement, accept, base)
    if not (path / "config.yaml").exists() and is_reference(path):
        if base is not None:
            raise CheckpointError(f"{path} holds all of its weights: leave base out")
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
            return load_checkpoint(folder / str(wanted[0]), placement, model, base)
        except DamagedError as error:
            if len(wanted) == 1:
                raise
            wanted.pop(0)
            print(f"{error}; step {wanted[0]} is loaded in its place", file=sys.stderr)


def load_checkpoint(
    path: Path,
    placement: Placement,
    model: OwnModel = None,
    base: str | Path | Loaded | None = None,
) -> Loaded:
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
        module, shapes = make_model(config), param_shapes(config)
    else:
        module = model if isinstance(model, nn.Module) else model(config)
        ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
        shapes = jax.eval_shape(module.init, jax.random.key(0), ids)["params"]
    leaves = read_saved(path, meta, run, placement, shapes)
    below = base_from_meta(meta)
    if below is not None:
        run_folder = path.absolute().parents[1]
        found, _ = open_base(below, run_folder, lambda place: load_placed(place, placement), base)
        params, merged = on_base(found, leaves, config)
    elif base is not None:
        raise CheckpointError(f"{path} holds all of its weights: leave base out")
    else:
        params, merged = merged_params(leaves)
    origin = {name: meta.get(name) for name in ("step", "val_loss", "data")}
    origin |= {"source": run.run.name} | meta.get("origin", {})
    known = {name: value for name, value in origin.items() if value is not None}
    return Loaded(module, params, tokenizer, config, known, run, merged=merged)


def read_saved(
    checkpoint: Path,
    meta: dict[str, Any],
    run: Config,
    placement: Placement,
    shapes: Mapping[str, Any],
) -> dict[str, Any]:
    """The params that a checkpoint holds, as they were trained, by path, adapters apart.

    `shapes` are those of the model's own params, without adapters.
    """
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
        if meta.get("base") is None or name in meta["trained"]
    }
    saved = restore_items(checkpoint, {PARAMS: unflatten_dict(target, sep="/")})[PARAMS]
    return placement.finite(flatten_dict(saved, sep="/"))


def load_adapters(
    path: Path, placement: Placement, accept: Collection[str], base: str | Path | Loaded | None
) -> Loaded:
    """The model of a directory of adapters in PEFT's layout, on its base."""
    name, revision = adapted_base(path)
    if not isinstance(base, Loaded):
        beside = [place for place in (Path(name), path / name) if name and place.is_dir()]
        if base is None and not beside and not re.fullmatch(HUB_ID, name):
            raise CheckpointError(
                f"{path} holds adapters of {name or 'a model that it does not name'}, which is not "
                "there; bring it back, or name where it is now: base= of jaxlm.load"
            )
        place = Path(base) if base is not None else beside[0] if beside else Path(name)
        base = load_placed(place, placement, revision=revision, accept=accept)
    leaves, config, hashes, tokenizer = read_adapters(path, base, placement)
    below = BaseModel(config, frozenset(leaves), hashes, name)
    fault = below.fault(base)
    if fault is not None:
        raise CheckpointError(f"{path} holds adapters of {name}, not of this model: {fault}")
    return adapted(base, leaves, tokenizer, config, {"source": path.name})


def adapted(
    base: Loaded,
    leaves: dict[str, Any],
    tokenizer: Tokenizer,
    config: ModelConfig,
    origin: dict[str, Any],
    run: Config | None = None,
) -> Loaded:
    """A base with weights put onto it."""
    params, merged = on_base(base, leaves, config)
    # Of the base alone are what it was measured at, and on what.
    told_of_base = {k: v for k, v in base.origin.items() if k not in ("val_loss", "data")}
    return Loaded(
        make_model(config), params, tokenizer, config, told_of_base | origin, run, merged=merged
    )


def with_trained(base: Loaded, file: Path, placement: Placement) -> Loaded:
    """The model of a file of `write_trained`, on the weights that it was trained from."""
    leaves, run, below, told = read_own_weights(file, placement)
    fault = below.fault(base)
    if fault is not None:
        raise CheckpointError(f"{file} was trained on {below.written}, not on this model: {fault}")
    tokenizer = Tokenizer(base.tokenizer.backend, told["tokenizer_config"], base.tokenizer.source)
    origin = {"source": run.run.name, "step": told["step"]}
    return adapted(base, leaves, tokenizer, run.model, origin, run)


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
        write_params(folder / "checkpoints" / "0", loaded.params, meta)
