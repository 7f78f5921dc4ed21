"""The run directory: what is written where, and whether a command starts, resumes or is done."""

import dataclasses
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import jax

from jaxlm import __version__
from jaxlm.checkpoint import RunLock, is_imported, saved_steps
from jaxlm.config import (
    Config,
    JaxlmError,
    ModelConfig,
    build_config,
    read_yaml,
    to_mapping,
    to_yaml,
)
from jaxlm.config.schema import fields_with_role
from jaxlm.config.sections import section_kinds
from jaxlm.files import write_file
from jaxlm.tokenizer import Tokenizer

MetricsRow = dict[str, Any]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tokenizers", "numpy")


class RunError(JaxlmError):
    """A run directory that the command must not write to as it stands."""


class RunDirectory:
    """One run's folder, locked while open; files are named as in docs/training.md."""

    def __init__(self, config: Config):
        self.path = Path(config.resolved().run.dir)
        self.config = config
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"run.dir {self.path} is a file; choose another run.dir")
        self._created = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = RunLock(self.path)
        except OSError as error:
            raise RunError(f"cannot write to run.dir {self.path}: {error.strerror}") from None
        self.checkpoints = self.path / "checkpoints"

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        """Give the lock back; a directory that this run made and never filled goes away."""
        if error is not None and self._created and not (self.path / "config.yaml").exists():
            shutil.rmtree(self.path)
        self._lock.release()

    def decide(self) -> Literal["start", "resume", "finished"]:
        """What this command is to do here; RunError where it would harm what is there."""
        run = self.config.run
        strangers = [p.name for p in self.path.iterdir() if p.name not in (".lock", "config.yaml")]
        if not (self.path / "config.yaml").exists():
            if strangers:
                raise RunError(f"{self.path} holds other files; choose an empty run.dir")
            if run.resume == "must":
                raise RunError(f"run.resume is must, but {self.path} holds no run")
            return "start"
        if run.overwrite:
            print(f"overwriting {self.path}: what it held is deleted")
            return "start"
        if run.resume == "never":
            raise RunError(
                f"{self.path} holds a run and run.resume is never; "
                "choose another run.dir or --run.overwrite true"
            )
        finished = (self.path / "summary.json").exists()
        if not finished and not saved_steps(self.checkpoints):
            return "start"
        if not finished and is_imported(self.checkpoints):
            raise RunError(
                f"{self.path} holds an imported model, which has nothing to go on training from; "
                "choose another run.dir"
            )
        self._refuse_changes()
        return "finished" if finished else "resume"

    def _refuse_changes(self) -> None:
        """RunError where the config would take other steps than the run that is here."""
        then = dict(flat(to_mapping(build_config(read_yaml(self.path / "config.yaml")))))
        now = dict(flat(to_mapping(self.config.resolved())))
        passed_over = not_compared() | open_fields(self.config)
        changes = [
            f"{name}: {then.get(name)} -> {now.get(name)}"
            for name in {**now, **then}
            if name not in passed_over and now.get(name) != then.get(name)
        ]
        if changes:
            raise RunError(
                f"{self.path} holds a run with another config ({'; '.join(changes)}); "
                "choose another run.dir, or --run.overwrite true to delete it"
            )

    def start(self, config: Config, tokenizer: Tokenizer) -> None:
        """Empty the directory and write what a run begins with."""
        for old in self.path.iterdir():
            if old.name != ".lock":
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        self.write("config.yaml", to_yaml(recorded(config)))
        tokenizer.save(self.path)
        self.write("environment.json", to_json(environment()))

    def rewind(self, step: int) -> list[MetricsRow]:
        """Cut metrics and samples after a step, and a torn last line; return the metrics left."""
        rows = {}
        for name in ("metrics.jsonl", "samples.jsonl"):
            rows[name] = [r for r in read_metrics(self.path / name) if r["step"] <= step]
            self.write(name, "".join(to_json(row, indent=None) for row in rows[name]))
        return rows["metrics.jsonl"]

    def append(self, name: str, row: MetricsRow) -> None:
        """Add one line to a .jsonl file; it outlives this process from here on."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(to_json(row, indent=None))

    def write(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        write_file(self.path / name, text)


def not_compared() -> set[str]:
    """Fields in which two runs may differ and still take the same steps."""
    return {
        f"{section}.{name}"
        for section, kind in section_kinds().items()
        for name in fields_with_role(kind, "place", "cadence")
    }


def open_fields(config: Config) -> set[str]:
    """Fields that a config leaves to the data, the task, the device or the model it starts from."""
    names = {
        f"{section}.{field.name}"
        for section, kind in section_kinds().items()
        for field in dataclasses.fields(kind)
        if field.metadata["told_by"] and getattr(getattr(config, section), field.name) in (None, ())
    }
    if config.finetune.init_from is not None:
        own = fields_with_role(ModelConfig, "execution", "head")
        names |= {
            f"model.{field.name}"
            for field in dataclasses.fields(ModelConfig)
            if field.name not in own and not config.gives("model", field.name)
        }
    return names | ({"train.steps"} if config.train.epochs is not None else set())


def recorded(config: Config) -> Config:
    """The config as a run keeps it: read again, it must continue the run, not delete it."""
    run = dataclasses.replace(config.run, resume="auto", overwrite=False)
    return dataclasses.replace(config, run=run)


def read_metrics(path: Path) -> list[MetricsRow]:
    """The rows of a .jsonl file; a last line that a crash tore is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def to_json(value: Any, indent: int | None = 2) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False) + "\n"


def flat(settings: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def environment() -> dict[str, Any]:
    """Versions, devices and the source's commit: what a number in the run may depend on."""
    source = Path(__file__).parent
    git = shutil.which("git")
    commit = (
        git
        and subprocess.run(
            [git, "-C", str(source), "log", "-1", "--format=%H", "--", "."],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "jaxlm": __version__,
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
        "commit": commit or None,
    }
