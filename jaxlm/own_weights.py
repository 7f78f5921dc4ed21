"""What a run with frozen weights has of its own, written without the base that it stands on."""

from pathlib import Path
from typing import Any

from jaxlm.artifact import FIRST_DEVICE, Loaded
from jaxlm.base_model import BaseModel, base_from_meta, base_hashes, write_own_weights
from jaxlm.checkpoint import CheckpointError, best_first, read_meta, saved_steps
from jaxlm.config import Config, build_config
from jaxlm.hub.adapters import write_adapters
from jaxlm.loading import read_saved
from jaxlm.models import make_model, shapes_by_path
from jaxlm.models.parameters import is_adapter
from jaxlm.tokenizer import Tokenizer


def own_weights(
    run: str | Path, step: int | None = None
) -> tuple[dict[str, Any], Config, BaseModel, dict[str, Any]]:
    """The weights that a run has and its base lacks, with its config, base and meta.

    CheckpointError where the run holds all weights.
    """
    folder = Path(run) / "checkpoints"
    steps = saved_steps(folder)
    if not steps:
        raise CheckpointError(f"{run} has no checkpoint; give a run directory")
    if step not in (None, *steps):
        raise CheckpointError(f"{run} has no step {step}; it has {', '.join(map(str, steps))}")
    path = folder / str(best_first(folder, steps)[0] if step is None else step)
    meta = read_meta(path)
    if meta.get("trained") is None:
        raise CheckpointError(f"{run} trained all of its weights: export it whole")
    config = build_config(meta["config"])
    shapes = shapes_by_path(config.model)
    leaves = read_saved(path, meta, config, FIRST_DEVICE, shapes)
    base = base_from_meta(meta)
    if base is None:  # of an earlier version, which kept all weights
        own = {name for name in leaves if name in meta["trained"] or is_adapter(name)}
        hashes = base_hashes({name: leaf for name, leaf in leaves.items() if name not in own})
        base = BaseModel(config.model, frozenset(own), hashes, str(config.finetune.init_from))
        leaves = {name: leaves[name] for name in own}
    return leaves, config, base, meta


def write_trained(run: str | Path, file: str | Path, step: int | None = None) -> None:
    """Write what a run trained, adapters or some of the weights, as one .safetensors file.

    `jaxlm.load(BASE, trained=FILE)` puts it onto the model that the run started from.
    CheckpointError where the run trained all weights.
    """
    write_own_weights(Path(file), *own_weights(run, step))


def export_adapters(run: str | Path, directory: str | Path, step: int | None = None) -> None:
    """Write the adapters of a run, and its new head, as a directory in PEFT's layout.

    `jaxlm.load(directory)` and PEFT put them onto the base, which PEFT takes as a Hugging Face
    directory or hub id. CheckpointError where the run has no adapters, JaxlmError where the layout
    cannot hold what it trained.
    """
    leaves, config, base, meta = own_weights(run, step)
    tokenizer = Tokenizer.from_saved(meta["tokenizer"])
    origin = {"source": config.run.name} | meta.get("origin", {})
    loaded = Loaded(make_model(config.model), {}, tokenizer, config.model, origin, config)
    write_adapters(loaded, leaves, base.absolute or base.written, base.hashes, Path(directory))
