"""Rows of unlike lengths in batches of few shapes: like lengths together, each epoch anew."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int

SMALLEST_BUCKET = 32
GROUP = 50  # batches whose rows are sorted by length together, so that little is padding


def padded_length(length: int, limit: int) -> int:
    """The length that rows are padded to: a power of two, or the limit if that is less."""
    size = SMALLEST_BUCKET
    while size < length:
        size *= 2
    return min(size, limit)


class LengthOrder:
    """Which rows each step takes: in an epoch all of them, in a random order.

    It depends on the seed and the step alone. What is left over at the end of an epoch, less than
    a batch, waits for another order.
    """

    def __init__(self, lengths: Sequence[int] | Int[np.ndarray, " N"], batch_size: int, seed: int):
        self.lengths, self.batch_size, self.seed = np.asarray(lengths), batch_size, seed
        self.steps_per_epoch = max(1, len(self.lengths) // batch_size)
        # Two are kept: evaluation or a resume may look back.
        self._epoch = lru_cache(2)(self.epoch)

    def epoch(self, epoch: int) -> Int[np.ndarray, "N B"]:
        """The rows of each batch of an epoch."""
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.lengths))
        order = np.resize(order, self.steps_per_epoch * self.batch_size)
        lengths = self.lengths[order]
        group = GROUP * self.batch_size
        for first in range(0, len(order), group):
            part = slice(first, first + group)
            order[part] = order[part][np.argsort(lengths[part], kind="stable")]
        return random.permutation(order.reshape(self.steps_per_epoch, self.batch_size))

    def rows(self, step: int) -> Int[np.ndarray, " B"]:
        epoch, i = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[i]

    def epochs_at(self, step: int) -> float:
        """How many times all rows have been taken after `step` steps."""
        return step / self.steps_per_epoch
