"""Batches of pairs by token count: pairs of like length together, padded to few shapes."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxlm.data.batches import Batch

MOST_SHAPES = 8  # of batches, each of which takes seconds to compile
FEWEST_BATCHES = 4  # of a shape in an epoch: a batch of a few pairs would be a noisy step
EIGHT = 8  # rows of a batch are a multiple of it where there are more


class Shape(NamedTuple):
    """Rows of a batch, and the lengths that their sources and targets are padded to."""

    rows: int
    source: int
    target: int


class PairOrder:
    """Which pairs each step takes, and the shape of its batch: in an epoch each pair once.

    Both depend on the lengths (N, 2) of sources and targets, the seed and the step alone. A batch
    has about `batch_tokens` tokens, those of both sides and the padding counted, and its number of
    rows is a multiple of `multiple`. Pairs are parted by their longer side where that leaves the
    least padding.
    """

    def __init__(
        self, lengths: Int[np.ndarray, "N 2"], batch_tokens: float, seed: int, multiple: int = 1
    ):
        self.seed = seed
        longer = lengths.max(axis=1)
        groups = least_padding(lengths, MOST_SHAPES, FEWEST_BATCHES * batch_tokens)
        self.members = [np.flatnonzero(np.isin(longer, group)) for group in groups]
        self.shapes = []
        for members in self.members:
            source, target = map(int, lengths[members].max(axis=0))
            rows = int(batch_tokens // (source + target))
            step = multiple * EIGHT if rows >= 2 * multiple * EIGHT else multiple
            self.shapes.append(Shape(max(rows // step, 1) * step, source, target))
        self.counts = [
            -(-len(members) // shape.rows)
            for members, shape in zip(self.members, self.shapes, strict=True)
        ]
        self.steps_per_epoch = sum(self.counts)
        # Two are kept: evaluation or a resume may look back.
        self._epoch = lru_cache(2)(self.epoch)

    def epoch(self, epoch: int) -> list[tuple[Shape, Int[np.ndarray, " _"]]]:
        """The shape and the pairs of each batch of an epoch; a batch may have fewer than fit."""
        random = np.random.default_rng([self.seed, epoch])
        batches = list(self._parted([random.permutation(rows) for rows in self.members]))
        return [batches[i] for i in random.permutation(len(batches))]

    def in_order(self) -> Iterator[tuple[Shape, Int[np.ndarray, " _"]]]:
        """Every pair once, without randomness."""
        return self._parted(self.members)

    def _parted(
        self, members: Sequence[Int[np.ndarray, " _"]]
    ) -> Iterator[tuple[Shape, Int[np.ndarray, " _"]]]:
        # Parts of equal size: a batch of what is left over would be a step of a few pairs.
        for shape, rows, count in zip(self.shapes, members, self.counts, strict=True):
            yield from ((shape, part) for part in np.array_split(rows, count))

    def at(self, step: int) -> tuple[Shape, Int[np.ndarray, " _"]]:
        """The shape and the pairs of a step."""
        epoch, i = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[i]

    def epochs_at(self, step: int) -> float:
        """How many times all pairs have been taken after `step` steps."""
        return step / self.steps_per_epoch


def least_padding(
    lengths: Int[np.ndarray, "N 2"], most: int, smallest: float = 0
) -> list[Int[np.ndarray, " _"]]:
    """The lengths of longer sides, in order, in at most `most` runs that need the least padding.

    Pairs whose longer sides are of one run are padded to the longest source and target among them,
    and then have `smallest` tokens or more; one run has all where nothing else is possible.
    """
    kinds, of_kind, counts = np.unique(lengths.max(axis=1), return_inverse=True, return_counts=True)
    longest = np.zeros((len(kinds), 2), np.int64)
    np.maximum.at(longest, of_kind.reshape(-1), lengths)
    totals = np.concatenate([[0], np.cumsum(counts)])
    n = len(kinds)
    # cost[j] is the least padded size of the first j kinds in so many runs as were allowed so far.
    cost = np.full(n + 1, np.inf)
    cost[0] = 0
    starts = []
    for _ in range(min(most, n)):
        better, start = cost.copy(), np.arange(n + 1)
        for j in range(1, n + 1):
            # The longest sides of kinds i to j - 1, for each i.
            tops = np.maximum.accumulate(longest[:j][::-1])[::-1].sum(axis=1)
            sizes = tops * (totals[j] - totals[:j])
            sizes = np.where(sizes < smallest, np.inf, cost[:j] + sizes)
            best = int(sizes.argmin())
            if sizes[best] < better[j]:
                better[j], start[j] = sizes[best], best
        cost = better
        starts.append(start)
    runs, end = [], n
    for start in reversed(starts):
        first = int(start[end])
        if first < end:
            runs.append(kinds[first:end])
        end = first
    return runs[::-1] or [kinds]


def pair_batch(
    sources: Sequence[Int[np.ndarray, " _"]],
    targets: Sequence[Int[np.ndarray, " _"]],
    shape: Shape,
    start: int,
    pad: int,
) -> Batch:
    """The arrays of pairs in a shape; rows that are missing weigh nothing.

    `source_ids` and `source_mask` (B, S), 1 where there is a token; `target_ids` (B, T), what the
    decoder reads: `start` and all but the last token; `targets` and `weights` (B, T), what it is to
    say.
    """
    B, S, T = shape
    batch: Batch = {
        "source_ids": np.full((B, S), pad, np.int32),
        "source_mask": np.zeros((B, S), np.int32),
        "target_ids": np.full((B, T), pad, np.int32),
        "targets": np.full((B, T), pad, np.int32),
        "weights": np.zeros((B, T), np.float32),
    }
    batch["source_mask"][:, 0] = 1  # attention over nothing is no number
    batch["target_ids"][:, 0] = start
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        batch["source_ids"][row, : len(source)] = source
        batch["source_mask"][row, : len(source)] = 1
        batch["target_ids"][row, 1 : len(target)] = target[:-1]
        batch["targets"][row, : len(target)] = target
        batch["weights"][row, : len(target)] = 1
    return batch
