"""What a run prints: a progress bar on a terminal, else lines now and then; a closing line."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

QUIET_SECONDS = 20  # at least, between two lines of progress where there is no bar
BAR_SECONDS = 0.5  # at least, between two redraws of the bar


class TrainingConsole:
    """A bar with loss, tokens/s and time left; evaluations and samples are printed above it."""

    def __init__(self, steps: int, done: int):
        self.console = Console(highlight=False)
        self._steps, self._told, self._drawn = steps, time.monotonic(), 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            auto_refresh=False,  # a thread that draws ten times a second takes time from the step
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=steps, completed=done, numbers="")
        self._numbers = ""

    def __enter__(self) -> "TrainingConsole":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line above the bar; no markup."""
        self.console.print(escape(text), soft_wrap=True)

    def advance(self, step: int) -> None:
        """Move the bar to a step. It is redrawn every BAR_SECONDS only."""
        now = time.monotonic()
        if now - self._drawn > BAR_SECONDS:
            self._drawn = now
            self._bar.update(self._task, completed=step, numbers=self._numbers, refresh=True)

    def show(self, step: int, loss: float, speed: float) -> None:
        """Set the loss and tokens/s of the bar; without a bar, print them every QUIET_SECONDS."""
        self._numbers = f"loss {loss:.3f}  {speed:,.0f} tokens/s"
        if not self.console.is_terminal and time.monotonic() - self._told > QUIET_SECONDS:
            self._told = time.monotonic()
            self.say(f"step {step} of {self._steps}: {self._numbers}")


def memory_line(memory: Mapping[str, int], num_params: int) -> str:
    """How many parameters are trained and the memory this takes, from `memory_report`."""
    trained = memory["num_trained"]
    sizes = (memory[f"{name}_bytes"] / 1e6 for name in ("weights", "gradients", "optimizer"))
    return f"training {trained:,} of them ({trained / num_params:.2%}): " + (
        "{:.1f} MB weights, {:.1f} MB gradients, {:.1f} MB optimizer".format(*sizes)
    )


def closing_line(summary: Mapping[str, Any], path: Path) -> str:
    """The result in one sentence, compared with the n-gram baselines just above and below it."""
    line = f"{path}: {summary['steps']} steps in {summary['seconds']:.0f} s"
    best = summary["best_val_loss"]
    if best is None:
        return line
    line += f", best val loss {best:.4f}"
    if summary.get("metric", "loss") != "loss" and summary.get("best_val_metric") is not None:
        line += f", best val {summary['metric']} {summary['best_val_metric']:.4f}"
    for name, value in summary.get("test", {}).items():
        line += f", test {name} {value:.4f}"
    for name, scores in summary.get("simple_baselines", {}).items():
        metric, value = next(iter(scores.items()))
        line += f", {name.replace('_', ' ')} {metric} {value:.4f}"
    grams = [(loss, order) for order, loss in (summary.get("baselines") or {}).items()]
    told = {
        "better than": min(filter(lambda gram: gram[0] > best, grams), default=None),
        "worse than": max(filter(lambda gram: gram[0] <= best, grams), default=None),
    }
    words = [f"{how} a {g[1]}-gram table's {g[0]:.3f}" for how, g in told.items() if g]
    if words:
        learned = ": it has learned little" if told["better than"] is None else ""
        line += f" ({', '.join(words)}{learned})"
    return line


def duration(seconds: float) -> str:
    """A time in its most readable unit."""
    for name, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:,.1f} seconds"


def indent(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.strip("\n").split("\n"))
