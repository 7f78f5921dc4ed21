"""The run directory: its files, and whether a command starts, resumes or is already done."""

import fcntl
import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from jaxlm import __version__
from jaxlm.base_model import newest_base
from jaxlm.checkpoint import UNFINISHED, is_imported, saved_steps, step_folders
from jaxlm.config import (
    Config,
    ConfigError,
    JaxlmError,
    build_config,
    read_yaml,
    to_mapping,
    to_yaml,
)
from jaxlm.files import TEMPORARY, RowFile, rows_in, temporary_path, to_json, write_file
from jaxlm.processes import agreed, is_first
from jaxlm.runtime import environment
from jaxlm.tokenizer import Tokenizer
from jaxlm.training.recorded_config import flat, not_compared, open_fields, recorded

MetricsRow = dict[str, Any]
ROWS = ("metrics.jsonl", "samples.jsonl")
RESTARTS = "restarts.jsonl"
FILES = (
    "config.yaml",
    *(f"{side}tokenizer{kind}.json" for side in ("", "source_") for kind in ("", "_config")),
    "environment.json",
    "summary.json",
    "loss.png",
    RESTARTS,
    *ROWS,
)
CHECKPOINTS, LOCK, PROFILE, SKIPPED = "checkpoints", ".lock", "profile", "skipped"
# Folders beside the checkpoints, and the names of the files that a run writes in them.
FOLDERS = {
    PROFILE: r".*\.(pb|json\.gz)",
    "tensorboard": r"events\.out\.tfevents\..*",
    "wandb": r".*",
    SKIPPED: r"batch_\d+\.npz",
}
STEP = re.compile(rf"\d+(\.damaged|{re.escape(UNFINISHED)}.*)?|{TEMPORARY.pattern}", re.ASCII)
# A run whose config differs only in these, and has less of them, is lengthened.
LENGTHS = ("train.steps", "train.epochs")


class RunError(JaxlmError):
    """A run directory that the command must not write to."""


class RunDirectory:
    """One run's folder, locked while open; files are named as in docs/training.md.

    Of several processes the first writes it. The others write what it does to an `output` of their
    own, which is thrown away, and learn from the first what the folder holds.
    """

    def __init__(self, config: Config):
        self.path = Path(config.resolved().run.dir)
        self.config = config
        self.checkpoints = self.path / CHECKPOINTS
        self._created = False
        self._lock: RunLock | None = None
        agreed(self._open)
        self.output = self.path if is_first() else Path(tempfile.mkdtemp(prefix="jaxlm-process-"))
        self.rows = {name: RowFile(self.output / name) for name in ROWS}

    def _open(self) -> None:
        try:
            if self.path.exists() and not self.path.is_dir():
                raise RunError(f"run.dir {self.path} is a file; choose another run.dir")
            self._created = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = RunLock(self.path)
        except (OSError, ValueError) as error:  # ValueError: a null character
            reason = error.strerror if isinstance(error, OSError) else error
            raise RunError(f"cannot write to run.dir {self.path}: {reason}") from None

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        """Release the lock; remove a directory that this run created and left empty."""
        if error is not None and self._created:
            with suppress(OSError):
                if [path.name for path in self.path.iterdir()] == [LOCK]:
                    (self.path / LOCK).unlink()
                    self.path.rmdir()
        if self._lock is not None:
            self._lock.release()
        if self.output != self.path:
            shutil.rmtree(self.output, ignore_errors=True)

    def decide(self) -> Literal["start", "resume", "finished"]:
        """What the command has to do here; RunError where it would spoil what is there."""
        return agreed(self._decide)

    def _decide(self) -> Literal["start", "resume", "finished"]:
        run = self.config.run
        if not (self.path / "config.yaml").exists():
            if found := [name for name in self.names() if name != LOCK]:
                raise RunError(
                    f"{self.path} holds other files ({found[0]}) and no config.yaml of a run; "
                    "choose an empty run.dir"
                )
            if run.resume == "must":
                raise RunError(f"run.resume is must, but {self.path} holds no run")
            return "start"
        if run.overwrite:
            self._refuse_strangers()
            print(f"overwriting {self.path}: what it held is deleted")
            return "start"
        if run.resume == "never":
            raise RunError(
                f"{self.path} holds a run and run.resume is never; "
                "choose another run.dir or --run.overwrite true"
            )
        finished = self._is_finished()
        if not finished and not step_folders(self.checkpoints):
            self._refuse_strangers()
            return "start"
        if not finished and is_imported(self.checkpoints):
            raise RunError(
                f"{self.path} holds an imported model, which has nothing to go on training from; "
                "choose another run.dir"
            )
        lengthened = self._compare_configs()
        if finished and not lengthened:
            return "finished"
        if not saved_steps(self.checkpoints):
            raise RunError(
                f"none of the checkpoints in {self.checkpoints} is whole; bring them back from a "
                "copy, choose another run.dir, or --run.overwrite true to start anew"
            )
        return "resume"

    def names(self) -> list[str]:
        """Names in the directory, sorted, without temporary files of an interrupted write."""
        return sorted(p.name for p in self.path.iterdir() if not TEMPORARY.fullmatch(p.name))

    def _refuse_strangers(self) -> None:
        """Raise RunError unless a run wrote everything here, so that it may be deleted."""
        if "run_format" not in read_yaml(self.path / "config.yaml"):
            raise RunError(
                f"the config.yaml in {self.path} was not written by a run, and is not overwritten; "
                "choose another run.dir"
            )
        for name in self.names():
            path = self.path / name
            ours = path.is_file() and not path.is_symlink() and name in (*FILES, LOCK)
            if name in FOLDERS and path.is_dir() and not path.is_symlink():
                inside = (p for p in path.rglob("*") if not p.is_dir())
                strange = [p for p in inside if not re.fullmatch(FOLDERS[name], p.name)]
                ours, path = not strange, next(iter(strange), path)
            if not ours and not (name == CHECKPOINTS and path.is_dir()):
                raise RunError(
                    f"{path.parent} holds {path.name}, which no run wrote; move it, or choose "
                    "another run.dir"
                )
        for path in self.checkpoints.iterdir() if self.checkpoints.is_dir() else ():
            if not STEP.fullmatch(path.name) or path.is_symlink():
                raise RunError(
                    f"{self.checkpoints} holds {path.name}, which no run wrote; move it, or choose "
                    "another run.dir"
                )

    def _is_finished(self) -> bool:
        """Whether there is a readable summary.json, which a run writes last."""
        try:
            json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return True

    def _compare_configs(self) -> bool:
        """Whether the config makes the run longer and changes nothing else.

        RunError where it changes anything that affects training.
        """
        try:
            kept = build_config(read_yaml(self.path / "config.yaml"))
        except ConfigError as error:
            raise RunError(f"the config.yaml in {self.path} is damaged: {error}") from None
        then = dict(flat(to_mapping(kept)))
        now = dict(flat(to_mapping(self.config.resolved())))
        passed_over = not_compared() | open_fields(self.config)
        passed_over |= {"finetune.init_from"} if newest_base(self.checkpoints) else set()  # hashed
        if then["optim.warmup_steps"] == then["train.steps"]:  # the steps had cut it short
            passed_over |= {"optim.warmup_steps"}
        differing = [name for name in {**now, **then} if now.get(name) != then.get(name)]
        changed = [name for name in differing if name not in passed_over]
        lengthened = [n for n in changed if n in LENGTHS and (now[n] or 0) > (then[n] or 0)]
        if changed != lengthened:
            changes = "; ".join(f"{name}: {then.get(name)} -> {now.get(name)}" for name in changed)
            raise RunError(
                f"{self.path} holds a run with another config ({changes}); "
                "choose another run.dir, or --run.overwrite true to delete it"
            )
        return bool(lengthened)

    def start(self, config: Config, tokenizer: Tokenizer) -> None:
        """Delete the files of an earlier run, and nothing else; write those a run starts with."""
        agreed(lambda: self._start(config, tokenizer))

    def _start(self, config: Config, tokenizer: Tokenizer) -> None:
        # First the files that record progress: if interrupted here, the rest counts as not begun.
        for name in ("summary.json", RESTARTS, *ROWS):
            (self.path / name).unlink(missing_ok=True)
        old = [self.path / name for name in FOLDERS if (self.path / name).is_dir()]
        old += self.checkpoints.iterdir() if self.checkpoints.is_dir() else ()
        for path in old:
            trash = temporary_path(path)
            path.rename(trash)
            shutil.rmtree(trash)
        (self.path / "loss.png").unlink(missing_ok=True)
        self.describe(config, tokenizer)
        self.write("environment.json", to_json(environment(__version__)))

    def resume(self, config: Config, tokenizer: Tokenizer) -> None:
        """Write config and tokenizer again: the run may have been lengthened."""
        agreed(lambda: self._resume(config, tokenizer))

    def _resume(self, config: Config, tokenizer: Tokenizer) -> None:
        (self.path / "summary.json").unlink(missing_ok=True)
        self.describe(config, tokenizer)

    def steps_recorded(self) -> int:
        """train.steps of the run in this directory."""
        return agreed(lambda: build_config(read_yaml(self.path / "config.yaml")).train.steps)

    def describe(self, config: Config, tokenizer: Tokenizer) -> None:
        """Write the config, which marks the directory as that of a run, then the tokenizer."""
        for path in (*self.path.glob(".jaxlm-*"), *self.checkpoints.glob(".jaxlm-*")):
            if TEMPORARY.fullmatch(path.name):  # left by an interrupted write
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.write("config.yaml", to_yaml(recorded(config)))
        tokenizer.save(self.path)

    def rewind(self, step: int, marks: dict[str, list]) -> list[MetricsRow]:
        """Cut rows after the step of a checkpoint with `marks`; return the metrics that remain."""

        def kept() -> list[MetricsRow]:
            rows = {name: file.rewind(step, marks.get(name)) for name, file in self.rows.items()}
            return rows["metrics.jsonl"]

        return agreed(kept)

    def last_row(self) -> MetricsRow | None:
        """The newest row of metrics.jsonl, as an ended process left it."""
        newest = agreed(lambda: rows_in(self.path / "metrics.jsonl")[-1:])
        return newest[0] if newest else None

    def marks(self) -> dict[str, list]:
        """Size and hash of metrics and samples, which are flushed to disk."""
        return {name: file.mark() for name, file in self.rows.items()}

    def append(self, name: str, row: MetricsRow) -> None:
        """Add a row to a .jsonl file. It survives the end of the process from here on."""
        self.rows[name].append(row)

    def write(self, name: str, text: str) -> None:
        """Write a file atomically."""
        write_file(self.output / name, text)


class RunLock:
    """An exclusive lock on a run directory. The system releases it when the process ends.

    Raises: RunError where another process holds it.
    """

    def __init__(self, folder: Path):
        self._file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise RunError(
                f"another process is training in {folder}; wait for it or choose another run.dir"
            ) from None
        except OSError as error:
            os.close(self._file)
            raise RunError(
                f"{folder} is on a file system that locks no files ({error.strerror}), which a run "
                "needs; choose another run.dir"
            ) from None

    def release(self) -> None:
        os.close(self._file)
