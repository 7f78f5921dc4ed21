"""A trace of some steps, for Perfetto or TensorBoard."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax


class Profiler:
    """Traces the steps of `train.profile` into a folder of the run directory.

    "10:20" are the steps after the tenth up to the twentieth. The loop waits for the device before
    and after them, and nowhere else, so that the trace holds these steps whole and no others.
    Leaving the `with` block writes what was traced so far.
    """

    def __init__(self, steps: str | None, folder: Path):
        self.first, self.last = (-1, -1) if steps is None else map(int, steps.split(":"))
        self._folder, self._running = folder, False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def step(self, step: int) -> AbstractContextManager[Any]:
        """Marks the update that follows so many steps in the trace."""
        return jax.profiler.StepTraceAnnotation("step", step_num=step) if self._running else NOTHING

    def look(self, step: int, state: Any) -> Path | None:
        """Begin or end the trace if it is time, after so many steps; the file that was written."""
        if step == self.first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._running = True
        elif step == self.last and self._running:
            jax.block_until_ready(state)
            return self._stop()
        return None

    def _stop(self) -> Path | None:
        """Write the trace; its file for Perfetto, if there was one."""
        if not self._running:
            return None
        self._running = False
        jax.profiler.stop_trace()
        return max(self._folder.rglob("perfetto_trace.json.gz"), key=lambda p: p.stat().st_mtime)


NOTHING = nullcontext()
