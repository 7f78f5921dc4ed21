"""What a run shows while it trains: a progress bar on a terminal, lines elsewhere."""

import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

QUIET_SECONDS = 20  # the least between two lines of progress where there is no bar


class TrainingConsole:
    """A bar with loss, tokens/s and time left; above it, a line an evaluation and a sample."""

    def __init__(self, steps: int, done: int):
        self.console = Console(highlight=False)
        self._steps, self._told = steps, time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=steps, completed=done, numbers="")

    def __enter__(self) -> "TrainingConsole":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line above the bar; no markup."""
        self.console.print(escape(text), soft_wrap=True)

    def advance(self, step: int, loss: float | None = None, speed: float = 0.0) -> None:
        """Move the bar to a step, with the last logged loss and tokens/s if given."""
        if loss is None:
            self._bar.update(self._task, completed=step)
        else:
            numbers = f"loss {loss:.3f}  {speed:,.0f} tokens/s"
            self._bar.update(self._task, completed=step, numbers=numbers)
            if not self.console.is_terminal and time.monotonic() - self._told > QUIET_SECONDS:
                self._told = time.monotonic()
                self.say(f"step {step} of {self._steps}: {numbers}")
