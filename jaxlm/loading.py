"""Open what training left behind: a run or a checkpoint, as a Loaded."""

from pathlib import Path

import jax
import jax.numpy as jnp
import tokenizers

from jaxlm.artifact import Loaded
from jaxlm.checkpoint import CheckpointError, is_checkpoint, read_meta, read_params, saved_steps
from jaxlm.config import build_config
from jaxlm.models import CausalLM
from jaxlm.tokenizer import Tokenizer


def load(path: str | Path, step: int | None = None) -> Loaded:
    """A run (its best checkpoint, else its last; `step` chooses one) or a single checkpoint.

    Raises CheckpointError where there is nothing to load.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"there is no directory {path}; give a run or a checkpoint")
    if is_checkpoint(path):
        if step is not None:
            raise CheckpointError(f"{path} is one checkpoint; give its run to choose a step")
        return load_checkpoint(path)
    folder = path / "checkpoints"
    steps = saved_steps(folder)
    if not steps:
        what = "has no checkpoint yet" if (path / "config.yaml").exists() else "is not a run"
        raise CheckpointError(f"{path} {what}; give a run directory or a checkpoint in one")
    if step is None:
        step = best_step(folder, steps)
    if step not in steps:
        raise CheckpointError(f"{path} has no step {step}; it has {', '.join(map(str, steps))}")
    return load_checkpoint(folder / str(step))


def best_step(folder: Path, steps: list[int]) -> int:
    """The step with the lowest val loss; the last one where none was measured."""
    losses = {step: read_meta(folder / str(step)).get("val_loss") for step in steps}
    measured = {step: loss for step, loss in losses.items() if loss is not None}
    return min(measured, key=measured.__getitem__) if measured else steps[-1]


def load_checkpoint(path: Path) -> Loaded:
    meta = read_meta(path)
    config = build_config(meta["config"]).model
    model = CausalLM(config)
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]
    backend = tokenizers.Tokenizer.from_str(meta["tokenizer"]["backend"])
    tokenizer = Tokenizer(backend, meta["tokenizer"]["config"])
    return Loaded(model, read_params(path, shapes), tokenizer, config)
