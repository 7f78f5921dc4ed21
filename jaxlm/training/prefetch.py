"""Batches made ahead of the step by a thread, and put on the devices beside it."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
from jax.sharding import Mesh

from jaxlm.config import ModelConfig
from jaxlm.parallel import place_rows
from jaxlm.tasks import Task
from jaxlm.tasks.task import Arrays
from jaxlm.training.faults import batch_of
from jaxlm.training.history import TrainingError

AHEAD = 2  # batches made before they are asked for; more would only take memory
POLL_SECONDS = 0.002  # between two looks whether the device still works


class Prefetch:
    """The batches of a task, one a step, from `step` to before `end`.

    Making a batch early changes nothing, as it depends on its step alone. What goes wrong while it
    is made is raised when it is taken. Batches that are `passed_over` take no step. Close it by
    leaving its `with` block.
    """

    def __init__(
        self,
        task: Task,
        model: ModelConfig,
        step: int,
        end: int,
        mesh: Mesh | None = None,
        passed_over: Sequence[int] = (),
    ):
        self._task, self._mesh, self._passed_over = task, mesh, passed_over
        self._sizes = {"source_ids": model.source_vocab_size or model.vocab_size}
        self._sizes |= dict.fromkeys(("ids", "target_ids"), model.vocab_size)
        self._steps = iter(range(step, end))
        self._thread = ThreadPoolExecutor(1, "prefetch")
        self._ahead: deque[Future[Arrays]] = deque()
        for _ in range(AHEAD):
            self._submit()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def is_ready(self) -> bool:
        """Whether the next batch is made."""
        return self._ahead[0].done()

    def wait(self, idle: Callable[[], bool]) -> None:
        """Wait until the next batch is made, or `idle` holds."""
        while not self.is_ready() and not idle():
            wait([self._ahead[0]], POLL_SECONDS)

    def take(self) -> Arrays:
        """The next batch, on the devices. Raises: TrainingError for an id that is no token."""
        batch = self._ahead.popleft().result()
        self._submit()
        return batch

    def again(self, number: int) -> Arrays:
        """A batch by its number, as the task makes it, for a look at it."""
        made = self._thread.submit(self._task.train_batch, number).result()
        return {name: np.array(array) for name, array in made.items()}

    def _submit(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._ahead.append(self._thread.submit(self._make, step))

    def _make(self, step: int) -> Arrays:
        batch = self._task.train_batch(batch_of(step, self._passed_over))
        for name, size in self._sizes.items():
            ids = batch.get(name)
            if isinstance(ids, np.ndarray) and ids.size and not 0 <= ids.min() <= ids.max() < size:
                wrong = ids.min() if ids.min() < 0 else ids.max()
                raise TrainingError(
                    f"the batch of step {step} holds the id {wrong}, but the vocabulary has ids "
                    f"from 0 to {size - 1}; look at the tokenizer and model.vocab_size"
                )
        # Copied first: on a CPU the device may go on reading NumPy's memory, and a task may fill
        # the same array again.
        return place_rows({name: np.array(array) for name, array in batch.items()}, self._mesh)
