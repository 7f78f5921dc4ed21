"""Where else the rows of metrics.jsonl go: TensorBoard, wandb, trackio, behind one protocol.

metrics.jsonl is the record; these are views of it. What fails in one of them never ends a run.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from jaxlm.config import Config, JaxlmError, to_mapping
from jaxlm.training.recorded_config import recorded
from jaxlm.training.run_directory import MetricsRow

PROJECT = "jaxlm"  # under which wandb and trackio file a run
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}


class LoggerError(JaxlmError):
    """A logger that cannot be used."""


class Logger(Protocol):
    """Takes the rows of a run as they are written."""

    def log(self, row: MetricsRow) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in a folder of the run directory; steps done again replace those before."""

    def __init__(self, config: Config, folder: Path, step: int):
        from tensorboardX import SummaryWriter

        again = step + 1 if step else None
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=again)

    def log(self, row: MetricsRow) -> None:
        for name, value in numbers_of(row).items():
            self._writer.add_scalar(name, value, row["step"])
        if row["split"] == "val":
            self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, continued where the run directory is; its own environment
    variables choose the account, or WANDB_MODE=offline."""

    def __init__(self, config: Config, folder: Path, step: int):
        import wandb  # pyright: ignore[reportMissingImports]

        known = folder / "wandb" / "run_id"
        if not known.exists():
            known.parent.mkdir(exist_ok=True)
            known.write_text(secrets.token_hex(8))
        self._run: Any = wandb.init(
            project=PROJECT,
            name=config.run.name,
            id=known.read_text(),
            resume="allow",
            dir=str(folder.absolute()),
            config=to_mapping(recorded(config)),
        )
        # The service drops rows whose own count of steps is not higher than the last one's, as
        # those of steps done again would be.
        self._run.define_metric("*", step_metric="step")

    def log(self, row: MetricsRow) -> None:
        self._run.log({"step": row["step"], **numbers_of(row)})

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run of trackio, kept where trackio keeps its own."""

    def __init__(self, config: Config, folder: Path, step: int):
        import trackio  # pyright: ignore[reportMissingImports]

        settings = to_mapping(recorded(config))
        name = config.run.name
        self._run: Any = trackio.init(project=PROJECT, name=name, config=settings, resume="allow")

    def log(self, row: MetricsRow) -> None:
        self._run.log(numbers_of(row), step=row["step"])

    def close(self) -> None:
        self._run.finish()


LOGGERS = {"tensorboard": TensorBoard, "wandb": Wandb, "trackio": Trackio}


class Loggers:
    """All loggers of a run. One that fails is told once and left alone from then on."""

    def __init__(self, loggers: dict[str, Logger]):
        self._loggers = loggers

    def log(self, row: MetricsRow) -> None:
        for name in list(self._loggers):
            self._try(name, "log", row)

    def close(self) -> None:
        for name in list(self._loggers):
            self._try(name, "close")

    def _try(self, name: str, method: str, *inputs: Any) -> None:
        try:
            getattr(self._loggers[name], method)(*inputs)
        except Exception as error:  # whatever a service and its client may raise
            del self._loggers[name]
            told = next(iter(str(error).splitlines()), "")
            print(f"{name} fails, and gets no more rows: {type(error).__name__}: {told}")


@contextmanager
def open_loggers(config: Config, folder: Path, step: int) -> Iterator[Loggers]:
    """The loggers of `run.loggers`, for a run that goes on from a step.

    Raises: LoggerError where one cannot be opened.
    """
    opened: dict[str, Logger] = {}
    loggers = Loggers(opened)
    try:
        for name in config.run.loggers:
            try:
                opened[name] = LOGGERS[name](config, folder, step)
            except Exception as error:
                told = next(iter(str(error).splitlines()), type(error).__name__)
                raise LoggerError(f"{name} of run.loggers cannot be opened: {told}") from None
        yield loggers
    finally:
        loggers.close()


def check_loggers(names: Sequence[str]) -> None:
    """LoggerError for a logger whose package is missing, before anything is read or trained."""
    for name in names:
        if find_spec(PACKAGES[name]) is None:
            raise LoggerError(
                f"run.loggers names {name}, but the package {PACKAGES[name]} is not installed; "
                f"pip install {PACKAGES[name]}, or leave it out"
            )


def numbers_of(row: MetricsRow) -> dict[str, float]:
    """The numbers of a row by split and name, as val/loss."""
    return {
        f"{row['split']}/{name}": value
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float)
    }
