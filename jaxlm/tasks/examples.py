"""Labelled rows as items, items as examples of tokens, and examples as batches of few shapes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxlm.data.batches import Batch

SMALLEST_BUCKET = 32
GROUP = 50  # batches whose rows are sorted by length together, so that little is padding


class Item(NamedTuple):
    """One row of the data: where it stands, what is read, and what is to be learned from it."""

    where: str
    content: tuple[str, ...]
    label: Any


@dataclass(frozen=True, eq=False)
class Example:
    """One row of a batch before padding.

    `tokens` are arrays with an entry a token, `ids` among them, `row` single values; `item` counts
    the items, of which a long one has several examples, and `note` leads from outputs to answers.
    """

    tokens: dict[str, np.ndarray]
    row: dict[str, Any]
    item: int
    note: Any = None

    def __len__(self) -> int:
        return len(self.tokens["ids"])


def bucket(length: int, limit: int) -> int:
    """The length that rows are padded to: a power of two, or the limit if that is less."""
    size = SMALLEST_BUCKET
    while size < length:
        size *= 2
    return min(size, limit)


def collate(examples: Sequence[Example], length: int, pad: int, rows: int) -> Batch:
    """Arrays (B, T) and (B,) of examples padded to a length; rows that are missing weigh nothing.

    Adds `attention_mask` (B, T), 1 where there is a token; a missing row shows one, as attention
    over nothing is no number.
    """
    batch: Batch = {}
    for name, first in examples[0].tokens.items():
        array = np.full((rows, length), pad if name == "ids" else 0, first.dtype)
        for i, example in enumerate(examples):
            array[i, : len(example)] = example.tokens[name]
        batch[name] = array
    for name, first in examples[0].row.items():
        values = np.stack([np.asarray(example.row[name]) for example in examples])
        blank = np.zeros((rows - len(examples), *np.shape(first)), values.dtype)
        batch[name] = np.concatenate([values, blank])
    lengths = np.array([len(example) for example in examples] + [1] * (rows - len(examples)))
    batch["attention_mask"] = (np.arange(length) < lengths[:, None]).astype(np.int32)
    return batch


def in_batches(
    examples: Sequence[Example], size: int, limit: int, pad: int
) -> Iterator[tuple[Batch, list[Example]]]:
    """Every example once, those of like length together, with the batch that it is in."""
    order = np.argsort([len(example) for example in examples], kind="stable")
    for first in range(0, len(order), size):
        chosen = [examples[i] for i in order[first : first + size]]
        yield collate(chosen, bucket(len(chosen[-1]), limit), pad, size), chosen


class RowFeed:
    """Batches of examples: each epoch takes all in a new order, like lengths together.

    A batch depends on the seed and the step alone. What is left over at the end of an epoch, less
    than a batch, waits for another order.
    """

    def __init__(
        self, examples: Sequence[Example], batch_size: int, limit: int, pad: int, seed: int
    ):
        self.examples, self.size = examples, batch_size
        self.limit, self.pad, self.seed = limit, pad, seed
        self.per_epoch = max(1, len(examples) // batch_size)
        self._order = lru_cache(2)(self.epoch_order)

    def epoch_order(self, epoch: int) -> Int[np.ndarray, "N B"]:
        """The examples of each batch of an epoch."""
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.examples))
        order = np.resize(order, self.per_epoch * self.size)
        lengths = np.array([len(example) for example in self.examples])[order]
        group = GROUP * self.size
        for first in range(0, len(order), group):
            part = slice(first, first + group)
            order[part] = order[part][np.argsort(lengths[part], kind="stable")]
        return random.permutation(order.reshape(self.per_epoch, self.size))

    def train_batch(self, step: int) -> Batch:
        epoch, i = divmod(step, self.per_epoch)
        chosen = [self.examples[j] for j in self._order(epoch)[i]]
        length = bucket(max(map(len, chosen)), self.limit)
        return collate(chosen, length, self.pad, self.size)

    def epochs_at(self, step: int) -> float:
        return step / self.per_epoch
