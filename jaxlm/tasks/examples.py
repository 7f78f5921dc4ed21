"""Labelled rows as items, items as examples of tokens, and examples as batches of few shapes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxlm.data.batches import Batch
from jaxlm.data.ordering import LengthOrder, padded_length


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
        yield collate(chosen, padded_length(len(chosen[-1]), limit), pad, size), chosen


class RowFeed:
    """Batches of examples in the order of `LengthOrder`."""

    def __init__(
        self, examples: Sequence[Example], batch_size: int, limit: int, pad: int, seed: int
    ):
        self.examples, self.limit, self.pad = examples, limit, pad
        self.order = LengthOrder([len(example) for example in examples], batch_size, seed)
        self.epochs_at = self.order.epochs_at

    def train_batch(self, step: int) -> Batch:
        chosen = [self.examples[i] for i in self.order.rows(step)]
        length = padded_length(max(map(len, chosen)), self.limit)
        return collate(chosen, length, self.pad, len(chosen))
