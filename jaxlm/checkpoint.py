"""Checkpoints with Orbax, saved asynchronously, the last and the best kept; the lock of a run."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.config import JaxlmError

STATE, PARAMS, META = "state", "params", "meta"


class CheckpointError(JaxlmError):
    """A checkpoint that is missing or cannot be read."""


class Checkpoints:
    """The checkpoints of a run, one folder a step, each complete in itself.

    A step holds `params` (those to evaluate with), `state` (the rest that training needs) and
    `meta` (JSON: config, tokenizer, data fingerprint, val loss, and `merit`, the score by which
    the best checkpoint is chosen).
    """

    def __init__(self, folder: Path):
        # Orbax takes over a second to import: a run imports it when it first saves or restores.
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers as managers

        self._args = ocp.args
        best = managers.BestN(get_metric_fn=merit, n=1, keep_checkpoints_without_metrics=False)
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=managers.AnyPreservationPolicy([managers.LatestN(1), best]),
                cleanup_tmp_directories=True,
                enable_async_checkpointing=True,
            ),
        )

    def save(self, step: int, params: Any, state: Any, meta: dict[str, Any]) -> None:
        """Start to write a checkpoint; the arrays may be donated as soon as this returns."""
        params, state = jax.tree.map(jnp.copy, (params, state))
        items = self._args.Composite(
            params=self._args.StandardSave(params),
            state=self._args.StandardSave(state),
            meta=self._args.JsonSave(meta),
        )
        worth = meta.get("merit")
        self._manager.save(step, args=items, metrics=None if worth is None else {"merit": worth})

    def restore(self, step: int, params: Any, state: Any) -> tuple[Any, Any]:
        """The saved (params, state) with the shapes, types and shardings of the given trees.

        Raises: CheckpointError.
        """
        items = self._args.Composite(
            params=self._args.StandardRestore(params), state=self._args.StandardRestore(state)
        )
        with restore_errors(f"step {step} of the run"):
            restored = self._manager.restore(step, args=items)
        return restored["params"], restored["state"]

    def wait(self) -> None:
        """Block until what was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def merit(metrics: dict[str, float]) -> float:
    return metrics["merit"]


def saved_steps(folder: Path) -> list[int]:
    """The steps of the finished checkpoints in a folder, in order; does not import Orbax."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and is_checkpoint(p))


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is one finished checkpoint."""
    return (folder / META / "metadata").is_file() and (folder / PARAMS).is_dir()


def is_imported(folder: Path) -> bool:
    """Whether the last checkpoint in a folder was imported, and has no state to resume from."""
    return not (folder / str(saved_steps(folder)[-1]) / STATE).is_dir()


def read_meta(checkpoint: Path) -> dict[str, Any]:
    """The JSON saved with a checkpoint.

    Raises: CheckpointError.
    """
    try:
        return json.loads((checkpoint / META / "metadata").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint} is not a readable checkpoint: {error}") from None


def read_params(checkpoint: Path, target: Any) -> Any:
    """The params of one checkpoint; `target` is a tree of ShapeDtypeStructs with shardings.

    Raises: CheckpointError.
    """
    import orbax.checkpoint as ocp

    with restore_errors(str(checkpoint)):
        return ocp.StandardCheckpointer().restore((checkpoint / PARAMS).absolute(), target)


def write_params(checkpoint: Path, params: Any, meta: dict[str, Any]) -> None:
    """Write a checkpoint to load, not to resume from: params and meta, no state."""
    import orbax.checkpoint as ocp

    checkpoint.mkdir(parents=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((checkpoint / PARAMS).absolute(), params)
    (checkpoint / META).mkdir()
    (checkpoint / META / "metadata").write_text(json.dumps(meta), encoding="utf-8")


@contextmanager
def restore_errors(what: str) -> Iterator[None]:
    """Raise CheckpointError, in one sentence, for what Orbax raises on a damaged checkpoint."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        if "tree structures do not match" in str(error):
            raise CheckpointError(
                f"the checkpoint {what} is of another model or optimizer than the config's; where "
                "it was trained with an optimizer or objective of your own, give the same again"
            ) from None
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"the checkpoint {what} is damaged: {reason}") from None


class RunLock:
    """An exclusive lock on a run directory; the system releases it however the process ends.

    Raises: CheckpointError where another process holds it.
    """

    def __init__(self, folder: Path):
        self._file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise CheckpointError(
                f"another process is training in {folder}; wait for it or choose another run.dir"
            ) from None

    def release(self) -> None:
        os.close(self._file)
