"""Batches as pure functions of the data, a seed and a step, so that a run resumes exactly."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from jaxlm.data.store import TokenStore

Batch = dict[str, np.ndarray]

SMALLEST_BUCKET = 32
GROUP = 50  # batches whose rows are sorted by length together, to reduce padding


def train_batch(
    store: TokenStore,
    seed: int,
    step: int,
    batch_size: int,
    seq_len: int,
    mask_documents: bool = False,
) -> Batch:
    """The windows of one step, drawn without replacement.

    In each epoch the windows are adjacent, start at a random offset and are shuffled. Returns
    int32 `ids` and `targets` (B, T); with `mask_documents` also `segment_ids` and `positions`
    (B, T), which restart at each document, and float32 `weights` (B, T), 0 where the target belongs
    to the next document.
    """
    place = step * batch_size + np.arange(batch_size)
    epoch, i = divmod(place, num_windows(len(store), seq_len))
    starts = np.empty(batch_size, np.int64)
    for e in np.unique(epoch):
        starts[epoch == e] = epoch_starts(len(store), seq_len, seed, int(e))[i[epoch == e]]
    batch = cut_windows(store, starts, seq_len)
    if mask_documents:
        batch |= document_arrays(store, starts, seq_len)
    return batch


def eval_batches(
    store: TokenStore, batch_size: int, seq_len: int, mask_documents: bool = False
) -> Iterator[Batch]:
    """Every token except the first as a target, once and in order, in batches of one shape.

    As `train_batch`, always with `weights`, which are 0 for padding.
    """
    all_starts = np.arange(0, len(store) - 1, seq_len)
    for first in range(0, len(all_starts), batch_size):
        starts = np.full(batch_size, len(store) - 1)
        present = all_starts[first : first + batch_size]
        starts[: len(present)] = present
        batch = cut_windows(store, starts, seq_len)
        held = starts[:, None] + np.arange(seq_len) < len(store) - 1
        if mask_documents:
            batch |= document_arrays(store, starts, seq_len)
        else:
            batch["weights"] = np.ones(held.shape, np.float32)
        yield {name: np.where(held, array, 0) for name, array in batch.items()}


def epochs_at(store: TokenStore, step: int, batch_size: int, seq_len: int) -> float:
    """Passes over the store after `step` steps."""
    return step * batch_size / num_windows(len(store), seq_len)


def num_windows(num_tokens: int, seq_len: int) -> int:
    """Windows in an epoch: one fewer than fit, which leaves room for a random offset."""
    return max(1, (num_tokens - seq_len) // seq_len)


@lru_cache(maxsize=2)
def epoch_starts(num_tokens: int, seq_len: int, seed: int, epoch: int) -> Int[np.ndarray, " N"]:
    """Where the windows of an epoch start, in order; two are cached, as a batch may span two."""
    random = np.random.default_rng([seed, epoch])
    count = num_windows(num_tokens, seq_len)
    offset = random.integers(num_tokens - count * seq_len)
    return offset + seq_len * random.permutation(count)


def cut_windows(store: TokenStore, starts: Int[np.ndarray, " B"], seq_len: int) -> Batch:
    places = starts[:, None] + np.arange(seq_len + 1)
    windows = store.tokens.take(places, mode="clip").astype(np.int32)
    # Copied, as a change to a view of the inputs would also change the targets.
    return {"ids": windows[:, :-1].copy(), "targets": windows[:, 1:].copy()}


def document_arrays(store: TokenStore, starts: Int[np.ndarray, " B"], seq_len: int) -> Batch:
    places = starts[:, None] + np.arange(seq_len + 1)
    documents = np.searchsorted(store.document_starts, places, side="right") - 1
    begins = np.maximum(store.document_starts[documents], starts[:, None])
    # Counted from 1 in each window; 0 is for padding.
    segments = (documents - documents[:, :1] + 1).astype(np.int32)
    return {
        "segment_ids": segments[:, :-1],
        "positions": (places - begins)[:, :-1].astype(np.int32),
        "weights": (segments[:, 1:] == segments[:, :-1]).astype(np.float32),
    }


def padded_length(length: int, limit: int) -> int:
    """The length to pad rows to: a power of two, at most `limit`."""
    size = SMALLEST_BUCKET
    while size < length:
        size *= 2
    return min(size, limit)


class LengthOrder:
    """The rows of each step: all of them once an epoch, in random order, similar lengths together.

    The order depends only on the seed and the step. Rows that do not fill a batch at the end of an
    epoch are left out of that epoch.
    """

    def __init__(self, lengths: Sequence[int] | Int[np.ndarray, " N"], batch_size: int, seed: int):
        self.lengths, self.batch_size, self.seed = np.asarray(lengths), batch_size, seed
        self.steps_per_epoch = max(1, len(self.lengths) // batch_size)
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
        """Passes over all rows after `step` steps."""
        return step / self.steps_per_epoch
