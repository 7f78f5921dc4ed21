"""The metrics of a run so far: their rows, the best score, and the clock behind tokens/s."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from jaxlm.config import JaxlmError
from jaxlm.tasks import Task
from jaxlm.tasks.task import Scores
from jaxlm.training.guard import Skips
from jaxlm.training.loggers import Loggers
from jaxlm.training.run_directory import MetricsRow, RunDirectory
from jaxlm.training.state import Metrics


class TrainingError(JaxlmError):
    """Training that cannot go on."""


class History:
    """The rows of metrics.jsonl, and what the loop needs to know of them at no cost a step.

    Rows are written as they are added. Values that are no number are written as null.
    """

    def __init__(self, run: RunDirectory, task: Task, mfu_per_speed: float | None):
        self.run, self.task = run, task
        self.mfu_per_speed = mfu_per_speed  # model FLOPs utilisation at one token a second
        self.loggers: Loggers | None = None
        self.rows: list[MetricsRow] = []
        self.best = -math.inf  # the highest score of an evaluation; more is better
        self.evaluations_since_best = 0
        self.last_val: MetricsRow | None = None
        self.saved_step = -1  # of the last checkpoint; -1: none yet
        self._began, self._seconds_before = time.perf_counter(), 0.0
        # Since when, and since which step, tokens/s is counted.
        self._clock, self._clock_step = self._began, 0

    def restore(self, rows: list[MetricsRow], step: int, seconds: float) -> None:
        """Go on from the rows up to a checkpoint's step, and the seconds the run had taken."""
        self.rows, self.saved_step, self._seconds_before = rows, step, seconds
        self._began = time.perf_counter()
        self.best, self.evaluations_since_best, self.last_val = -math.inf, 0, None
        for row in rows:
            if row["split"] == "val":
                self._judge(row)

    def start_clock(self, step: int) -> None:
        """Count tokens/s from here on."""
        self._clock, self._clock_step = time.perf_counter(), step

    @contextmanager
    def pause(self) -> Iterator[None]:
        """The time of the block does not count in tokens/s."""
        began = time.perf_counter()
        yield
        self._clock += time.perf_counter() - began

    @property
    def seconds(self) -> float:
        """Wall seconds of the run, including those of earlier processes that it resumed."""
        return self._seconds_before + time.perf_counter() - self._began

    def tokens(self, step: int) -> int:
        """Tokens trained on in so many steps."""
        return round(step * self.task.step_tokens)

    def add_step(self, step: int, metrics: Metrics) -> tuple[float, float, Skips | None]:
        """Write the row of an update; waits for the device.

        Returns its loss, tokens/s, and which updates were skipped up to it, where a guard looks.
        """
        found = jax.device_get(metrics)
        guard = {name: found.pop(f"guard_{name}", None) for name in Skips._fields}
        skips = None if guard["steps"] is None else Skips(**guard)
        values = {name: float(value) for name, value in found.items()}
        now = time.perf_counter()
        speed = (step - self._clock_step) * self.task.step_tokens / (now - self._clock)
        self._clock, self._clock_step = now, step
        row: MetricsRow = {"step": step, "split": "train"} | values
        row |= {"tokens": self.tokens(step), "tokens_per_second": round(speed, 1)}
        if self.mfu_per_speed is not None:
            row["mfu"] = round(speed * self.mfu_per_speed, 4)
        row["epoch"] = self.task.epochs_at(step)
        if skips is not None and skips.skipped:
            row["skipped"] = int(skips.skipped)
        self._record(row)
        return values["loss"], speed, skips

    def add_evaluation(self, step: int, measured: Scores) -> bool:
        """Write the row of an evaluation, and return whether its score is the best so far."""
        row: MetricsRow = {"step": step, "split": "val"} | measured
        before = self.best
        self._judge(self._record(row | {"tokens": self.tokens(step)}))
        return self.best > before

    def refuse_divergence(self, what: str, step: int, value: float) -> None:
        """Raise TrainingError unless the value is finite: nothing of such a step is saved."""
        if not math.isfinite(value):
            kept = f"the checkpoint of step {self.saved_step} is the last good one"
            kept = kept if self.saved_step >= 0 else "no checkpoint was saved before it"
            raise TrainingError(
                f"{what} at step {step}, and {kept}; lower optim.learning_rate or lengthen "
                "optim.warmup_steps"
            )

    def _judge(self, row: MetricsRow) -> None:
        """Compare an evaluation with the best one; a score that is no number is the worst."""
        score = None if row["loss"] is None else self.task.score(row)
        score = -math.inf if score is None or math.isnan(score) else score
        better = self.last_val is None or score > self.best
        self.evaluations_since_best = 0 if better else self.evaluations_since_best + 1
        self.best, self.last_val = max(self.best, score), row

    def _record(self, row: MetricsRow) -> MetricsRow:
        row["seconds"] = round(self.seconds, 3)
        # JSON has no NaN and no infinity.
        lost: dict[str, Any] = {
            k: None for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)
        }
        row |= lost
        self.rows.append(row)
        self.run.append("metrics.jsonl", row)
        if self.loggers is not None:
            self.loggers.log(row)
        return row
