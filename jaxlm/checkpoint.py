"""Checkpoints with Orbax, saved asynchronously, the last and the best kept.

Each file of a checkpoint has a hash, compared when it is read.
"""

import json
import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxlm.config import JaxlmError
from jaxlm.files import WriteError, damage, seal, sync
from jaxlm.processes import agreed, is_first
from jaxlm.runtime import is_out_of_memory

STATE, PARAMS, META = "state", "params", "meta"
UNFINISHED = ".orbax-checkpoint-tmp"  # how Orbax ends the name of a step that is being written


class CheckpointError(JaxlmError):
    """A checkpoint that is missing or cannot be read."""


class DamagedError(CheckpointError):
    """A checkpoint that is not as it was written."""


class Checkpoints:
    """The checkpoints of a run, one folder a step, none of which needs another.

    A step holds `params` (those to evaluate with, only a run's own where it stands on a base),
    `state` (the rest that training needs) and `meta` (JSON: config, tokenizer, data fingerprint,
    val loss, base, and `merit`, the score by which the best checkpoint is chosen). A new one is on
    disk before an older one is deleted.
    """

    def __init__(self, folder: Path):
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers as managers

        quiet_orbax()
        self._args, self._folder = ocp.args, folder
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._show
        worth = itemgetter("merit")
        best = managers.BestN(get_metric_fn=worth, n=1, keep_checkpoints_without_metrics=False)
        with self._writing():
            self._manager = ocp.CheckpointManager(
                folder.absolute(),
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=managers.AnyPreservationPolicy([managers.LatestN(1), best]),
                    best_fn=worth,  # without it the merits are not written, nor known later
                    cleanup_tmp_directories=True,
                    enable_async_checkpointing=True,
                    temporary_path_class=sealing_path(),
                ),
            )

    def save(self, step: int, params: Any, state: Any, meta: dict[str, Any]) -> None:
        """Start to write a checkpoint; the arrays may be donated as soon as this returns.

        Raises: WriteError, also for the checkpoint before.
        """
        params, state = jax.tree.map(jnp.copy, (params, state))
        items = self._args.Composite(
            params=self._args.StandardSave(params),
            state=self._args.StandardSave(state),
            meta=self._args.JsonSave(meta | {"hashed": True}),
        )
        metrics = {"merit": meta["merit"]} if meta.get("merit") is not None else None
        with self._writing():
            self._manager.save(step, args=items, metrics=metrics)

    def wait(self) -> None:
        """Block until what was saved is on disk. Raises: WriteError."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and end the threads that write. Raises: WriteError."""
        with self._writing():
            self._manager.close()
        # After a failure threads may still raise, so the hook stays.
        sys.unraisablehook = self._hook

    def _show(self, raised: Any) -> None:
        """Show an exception, but for those of TensorStore's threads after a write has failed."""
        if str(raised.exc_value) != "Event loop is closed":
            self._hook(raised)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Tell in one sentence what Orbax raises when it cannot write, and free what it wrote."""
        try:
            yield
        except Exception as error:
            warnings.filterwarnings("ignore", r"coroutine '\S*serialize")  # parts that never began
            for path in self._folder.glob(f"*{UNFINISHED}*") if is_first() else ():
                shutil.rmtree(path, ignore_errors=True)
            raise WriteError(
                f"cannot write a checkpoint to {self._folder}: {first_reason(error)}; the "
                "checkpoint before it is kept, and the same command goes on from there"
            ) from None


def first_reason(error: BaseException) -> str:
    """What the system said, or the first line, of an error of Orbax's or TensorStore's."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if found := re.search(r"os_error_code='(\d+)'|OS error (\d+)", str(error)):
        return os.strerror(int(found[1] or found[2]))
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def not_of_orbax(record: logging.LogRecord) -> bool:
    trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
    return "orbax" not in record.pathname + record.getMessage() + trace


def quiet_orbax() -> None:
    """Let Orbax log no tracebacks: what it raises is told in one sentence."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(not_of_orbax)


def sealing_path() -> Any:
    """Orbax's class for the folder in which a step is written, which seals it before it counts."""
    from orbax.checkpoint.path import atomicity

    class SealingPath(atomicity.AtomicRenameTemporaryPath):
        async def finalize(self) -> None:
            final = Path(self.get_final())
            if not final.name.isdigit():  # a part of a step
                await super().finalize()
                return
            if self._checkpoint_metadata_store is not None:
                self._checkpoint_metadata_store.wait_until_finished()
            seal(Path(self.get()))
            os.rename(self.get(), final)
            sync(final.parent)

    return SealingPath


def step_folders(folder: Path) -> list[Path]:
    """The folders of steps that hold anything, whole or not, in order of the steps."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if re.fullmatch(r"\d+", path.name, re.ASCII)]
    found = [path for path in found if path.is_dir() and any(path.iterdir())]
    return sorted(found, key=lambda path: int(path.name))


def saved_steps(folder: Path) -> list[int]:
    """The steps of the finished checkpoints in a folder, in order; does not import Orbax."""
    return [int(path.name) for path in step_folders(folder) if is_checkpoint(path)]


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is one finished checkpoint."""
    return (folder / META / "metadata").is_file() and (folder / PARAMS).is_dir()


def is_imported(folder: Path) -> bool:
    """Whether the last checkpoint in a folder was imported, and has no state to resume from."""
    last = step_folders(folder)[-1]
    with suppress(DamagedError):
        return not (last / STATE).is_dir() and read_meta(last).get("step") is None
    return False


def read_meta(checkpoint: Path) -> dict[str, Any]:
    """The JSON saved with a checkpoint. Raises: DamagedError."""
    try:
        meta = json.loads((checkpoint / META / "metadata").read_text(encoding="utf-8"))
        if "config" not in meta:
            raise ValueError("it lacks the config")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DamagedError(f"the checkpoint {checkpoint} is damaged: {error}") from None
    if reason := damage(checkpoint, (META,), meta.get("hashed", False)):
        raise DamagedError(f"the checkpoint {checkpoint} is damaged: {reason}")
    return meta


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


def restore_items(checkpoint: Path, targets: dict[str, Any]) -> dict[str, Any]:
    """The items of one checkpoint, with the shapes, types and shardings of the given trees.

    The hashes are compared first. Raises: CheckpointError, DamagedError.
    """
    import orbax.checkpoint as ocp

    quiet_orbax()
    hashed = read_meta(checkpoint).get("hashed", False)
    if reason := damage(checkpoint, tuple(targets), hashed):
        raise DamagedError(f"the checkpoint {checkpoint} is damaged: {reason}")
    # Each of several processes reads what its devices hold: it alone may have to.
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
    try:
        with ocp.StandardCheckpointer(multiprocessing_options=alone) as checkpointer:
            return {
                name: checkpointer.restore((checkpoint / name).absolute(), target)
                for name, target in targets.items()
            }
    except Exception as error:
        if is_out_of_memory(error):
            raise CheckpointError(f"there is too little memory to load {checkpoint}") from None
        if hashed or "tree structures do not match" in str(error):
            raise CheckpointError(
                f"the checkpoint {checkpoint} is of another model or optimizer than the config's; "
                "if it was trained with an optimizer or objective of your own, give them again"
            ) from None
        raise DamagedError(f"{checkpoint} is damaged: {first_reason(error)}") from None


def restore_newest(
    folder: Path, targets: Callable[[dict[str, Any]], dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The newest whole checkpoint's items and meta, of which `targets` makes what to restore.

    Damaged ones are set aside and told. Raises: CheckpointError where none is whole.
    """
    folders, damaged = step_folders(folder), {}
    while True:
        try:
            items = restore_items(folders[-1], targets(meta := read_meta(folders[-1])))
            break
        except DamagedError as error:
            damaged[folders.pop()] = str(error)
            if not folders:
                raise CheckpointError(f"{error}, and no other of the run is whole") from None
    agreed(lambda: set_all_aside(folders[:-1], damaged))
    return items, meta


def set_all_aside(older: list[Path], damaged: dict[Path, str]) -> None:
    """Rename damaged checkpoints; of older ones Orbax reads the merits."""
    for path in older:
        try:
            if reason := damage(path, ("metrics",), read_meta(path).get("hashed", False)):
                damaged[path] = f"the checkpoint {path} is damaged: {reason}"
        except DamagedError as error:
            damaged[path] = str(error)
    for path, reason in damaged.items():
        print(f"{reason}; it is kept as {set_aside(path).name}")


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged checkpoint, so that it counts no longer and nothing of it is lost."""
    aside = checkpoint.with_name(f"{checkpoint.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):
        checkpoint.rename(aside)
        sync(aside.parent)
    return aside


def write_params(checkpoint: Path, params: Any, meta: dict[str, Any]) -> None:
    """Write a checkpoint to load, not to resume from: params and meta, no state."""
    import orbax.checkpoint as ocp

    checkpoint.mkdir(parents=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((checkpoint / PARAMS).absolute(), params)
    (checkpoint / META).mkdir()
    (checkpoint / META / "metadata").write_bytes(json.dumps(meta | {"hashed": True}).encode())
    seal(checkpoint)
