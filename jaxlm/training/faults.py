"""What the loop does about skipped updates: it keeps their batches, and goes back if need be."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.files import RowFile, file_in_place
from jaxlm.training.history import TrainingError

MOST_KEPT = 32  # batches in the folder of skipped ones
MOST_ROLLBACKS = 3  # to one checkpoint; then the weights are at fault, not the batches
ADVICE = "lower optim.learning_rate, lengthen optim.warmup_steps or look at the batches"


class StuckError(Exception):
    """So many updates in a row were skipped that the loop has to go back."""


class Restarts:
    """restarts.jsonl: when a run went back to a checkpoint, and the batches it passes over since.

    A batch that is passed over takes no step: the batches after it move up. As a checkpoint is
    older than any batch that was passed over after it, its own steps stay as they were.
    """

    def __init__(self, path: Path, rows: list[dict[str, Any]]):
        self._file, self.rows = RowFile(path), rows

    @property
    def passed_over(self) -> list[int]:
        """The batches passed over, in order."""
        return sorted(batch for row in self.rows for batch in row.get("passed_over", ()))

    @property
    def lost_seconds(self) -> float:
        return sum(row["seconds"] for row in self.rows)

    def note(self, step: int, reached: int, seconds: float, **more: Any) -> None:
        """Add that a run went back from `reached` to the checkpoint of a step."""
        row = {"step": step, "reached": reached, "seconds": round(seconds, 3), **more}
        self._file.append(row)
        self._file.mark()
        self.rows.append(row)

    def refuse_another(self, step: int, reached: int) -> None:
        """TrainingError where going back to the checkpoint of a step would not help again."""
        told = f"updates were skipped again and again up to step {reached}, as their losses or "
        told += "gradients are no numbers or their losses spikes, and "
        if step < 0:
            raise TrainingError(f"{told}no checkpoint was saved before it; {ADVICE}")
        before = sum(row["step"] == step and "passed_over" in row for row in self.rows)
        if before >= MOST_ROLLBACKS:
            raise TrainingError(
                f"{told}going back to the checkpoint of step {step} did not help {before} times; "
                f"{ADVICE}"
            )


def batch_of(step: int, passed_over: Sequence[int]) -> int:
    """The number of the batch of a step, where the batches `passed_over`, in order, take none."""
    batch = step
    for passed in passed_over:
        batch += passed <= batch
    return batch


def keep_batch(folder: Path, number: int, batch: Mapping[str, np.ndarray]) -> Path | None:
    """Write a batch as batch_N.npz, unless there are many already; its path."""
    path = folder / f"batch_{number}.npz"
    if not path.exists() and folder.is_dir() and len(list(folder.iterdir())) >= MOST_KEPT:
        return None
    folder.mkdir(exist_ok=True)
    arrays: dict[str, Any] = dict(batch)
    with file_in_place(path) as temporary:
        np.savez(temporary, **arrays)
    return path
