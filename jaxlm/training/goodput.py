"""Where the wall time of a run goes, over all the processes that it takes."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

Part = Literal[
    "steps",  # updates, and whatever the loop waits for them
    "compiling",  # the programs compiled before the first step
    "waiting_for_data",  # for a batch, while the device had nothing to do
    "evaluation",
    "checkpoints",  # what the loop waits for; they are written beside it
    "sampling",
    "lost_to_restarts",  # done after a checkpoint from which a process went on again
    "other",  # reading the data, starting, closing
]
PARTS: tuple[Part, ...] = Part.__args__


class Goodput:
    """A clock of which one part runs at any time, so that the parts add up to the wall time.

    It looks at the host's time alone and never waits for the device: work that the device has yet
    to do when an evaluation begins counts as evaluation. Times of earlier processes come from the
    checkpoint that a run goes on from, and what they did after it from restarts.jsonl.
    """

    def __init__(self):
        self._seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._part: Part = "other"
        self._since = time.perf_counter()

    @contextmanager
    def spent(self, part: Part) -> Iterator[None]:
        """The time of the block counts as this part, but for parts inside of it."""
        before = self._switch(part)
        try:
            yield
        finally:
            self._switch(before)

    def seconds(self) -> dict[str, float]:
        """The seconds of each part up to now."""
        self._switch(self._part)
        return dict(self._seconds)

    def restore(self, kept: Mapping[str, float], lost: float) -> None:
        """Add the times `kept` with the checkpoint of an earlier process, and all that was lost."""
        for name, value in kept.items():
            if name in self._seconds:
                self._seconds[name] += value
        self._seconds["lost_to_restarts"] = lost

    def roll_back(self, kept: Mapping[str, float]) -> float:
        """Count what came after a checkpoint with these times as lost; the seconds of it."""
        now = self.seconds()
        before = {name: kept.get(name, 0.0) for name in PARTS if name != "lost_to_restarts"}
        lost = sum(now.values()) - sum(before.values())
        self._seconds = {**before, "lost_to_restarts": lost}
        return lost - now["lost_to_restarts"]

    def report(self) -> dict[str, float]:
        """The wall seconds of the run, and the share that each part has of them."""
        seconds = self.seconds()
        total = sum(seconds.values())
        shares = {name: round(value / total, 4) for name, value in seconds.items()}
        return {"seconds": round(total, 2), **shares}

    def _switch(self, part: Part) -> Part:
        """Let another part run from now on, and return the one before."""
        now = time.perf_counter()
        self._seconds[self._part] += now - self._since
        before, self._part, self._since = self._part, part, now
        return before


def goodput_line(report: Mapping[str, float]) -> str:
    """The report in one line, without parts that round to nothing."""
    shares = {name: share for name, share in report.items() if name != "seconds" and share >= 5e-4}
    told = (f"{name.replace('_', ' ')} {share:.1%}" for name, share in shares.items())
    return f"wall time {report['seconds']:.0f} s: {', '.join(told)}"
