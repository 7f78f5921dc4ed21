"""From rows of a table to items, from items to tokenized examples, and from examples to batches."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from jaxlm.config import DataConfig
from jaxlm.data.batches import Batch, padded_length
from jaxlm.data.sources import DataError
from jaxlm.tokenizer import Tokenizer, TokenizerError


class Item(NamedTuple):
    """One row of the data: its file and line, its texts, and its label.

    `given` are names and values that a dialogue's template sees besides.
    """

    where: str
    content: tuple[str, ...]
    label: Any
    given: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Example:
    """One row of a batch before padding.

    `tokens` are arrays with one entry a token, such as `ids`; `row` holds single values. `item` is
    the index of its item: a long item has several examples. `note` is what the task needs to turn
    outputs into an answer.
    """

    tokens: dict[str, np.ndarray]
    row: dict[str, Any]
    item: int
    note: Any = None

    def __len__(self) -> int:
        return len(self.tokens["ids"])


def collate(examples: Sequence[Example], length: int, pad: int, rows: int) -> Batch:
    """Arrays (B, T) and (B,) of examples padded to `length`, and to B = `rows` with weights 0.

    Adds `attention_mask` (B, T), 1 at tokens. An empty row has one token, as attention over none is
    NaN.
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
    """Batches of examples of similar length, each with its examples; every example once."""
    order = np.argsort([len(example) for example in examples], kind="stable")
    for first in range(0, len(order), size):
        chosen = [examples[i] for i in order[first : first + size]]
        yield collate(chosen, padded_length(len(chosen[-1]), limit), pad, size), chosen


@dataclass(frozen=True)
class Joined:
    """The ids of one or two texts with their special tokens; `types` is 0 or 1 for each token.

    `second` is where the second text starts, and `cut` whether a text was too long.
    """

    ids: list[int]
    types: list[int]
    second: int
    cut: bool


class Joiner:
    """Joins texts by the tokenizer's template, or without one by a newline."""

    def __init__(self, tokenizer: Tokenizer, limit: int):
        self.tokenizer, self.limit = tokenizer, limit

    @cached_property
    def _single(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after a text."""
        backend = self.tokenizer.backend
        if backend.post_processor is None:
            return [], []
        encoding = backend.encode("a")
        own = [i for i, sequence in enumerate(encoding.sequence_ids) if sequence == 0]
        return encoding.ids[: own[0]], encoding.ids[own[-1] + 1 :]

    @cached_property
    def _pair(self) -> tuple[list[int], list[int], list[int], int]:
        """The special tokens before, between and after two texts, and the second one's type."""
        backend = self.tokenizer.backend
        before: list[int] = []
        between: list[int] = []
        after: list[int] = []
        kind = 1
        if backend.post_processor is not None:
            encoding = backend.encode("a", "a")
            ids = encoding.ids
            first = [i for i, sequence in enumerate(encoding.sequence_ids) if sequence == 0]
            second = [i for i, sequence in enumerate(encoding.sequence_ids) if sequence == 1]
            before, after = ids[: first[0]], ids[second[-1] + 1 :]
            between = ids[first[-1] + 1 : second[0]]
            kind = encoding.type_ids[second[0]]
        if not between:  # the template of a decoder's tokenizer may have no separator
            with suppress(TokenizerError):
                between = self.tokenizer.encode_after("\n")
        return before, between, after, kind

    @property
    def before(self) -> int:
        """Special tokens before a text."""
        return len(self._single[0])

    def room(self, first: list[int] | None = None) -> int:
        """Room in tokens for one text, or for a second text after `first`.

        Raises: DataError where special tokens leave no room for a single text.
        """
        if first is None:
            room = self.limit - sum(map(len, self._single))
            if room < 1:
                raise DataError(
                    f"{self.limit} token(s) leave no room for a text beside its special tokens: "
                    "raise data.seq_len"
                )
            return room
        before, between, after, _ = self._pair
        return self.limit - len(before) - len(first) - len(between) - len(after)

    def one(self, ids: list[int]) -> Joined:
        """A single text, cut at its end if it is too long."""
        before, after = self._single
        room = self.room()
        joined = [*before, *ids[:room], *after]
        return Joined(joined, [0] * len(joined), len(joined), len(ids) > room)

    def two(self, first: list[int], second: list[int]) -> Joined:
        """Two texts; the longer one is cut until both fit."""
        before, between, after, kind = self._pair
        room = self.room([])
        keep = min(len(first), max(room - len(second), room - room // 2))
        cut = len(first) + len(second) > room
        if cut:
            first, second = first[:keep], second[: room - keep]
        left = [*before, *first, *between]
        right = [*second, *after]
        return Joined(left + right, [0] * len(left) + [kind] * len(right), len(left), cut)


COLUMNS = ("text_column", "pair_column", "label_column")


class RowReader(ABC):
    """How a task reads its rows, before their labels are known."""

    columns: ClassVar[tuple[str | None, ...]]  # default names of COLUMNS; None: not used
    optional: ClassVar[tuple[str, ...]] = ()  # columns that are read where they are there
    is_classifier: ClassVar[bool] = False  # whether its labels are classes or numbers

    @classmethod
    @abstractmethod
    def read(
        cls, where: str, row: Mapping[str, Any], data: DataConfig, problem: str, labelled: bool
    ) -> Item | None:
        """The item of a row, or None for a row without text.

        Raises: DataError for a malformed field.
        """

    @classmethod
    def exact(cls, data: DataConfig) -> tuple[str | None, ...]:
        """The columns that are not cleaned, as labels or answers count their characters."""
        return ()

    @classmethod
    def lists(cls, data: DataConfig, problem: str) -> tuple[str | None, ...]:
        """The columns that may hold lists, which a CSV or TSV file has as text in one cell."""
        return (data.label_column,) if problem == "multi_label" else ()

    @classmethod
    def labels_in(cls, item: Item) -> Sequence[str]:
        """The class names in an item's label."""
        return ()

    @classmethod
    def group(cls, item: Item) -> object:
        """The key of the items that a split keeps together; None: each is its own group."""
        return None

    @classmethod
    def has_classes(cls, problem: str) -> bool:
        """Whether its labels are class names."""
        return cls.is_classifier and problem != "regression"

    @classmethod
    def missing_columns(cls, data: DataConfig) -> dict[str, str | None]:
        """The default name of each column that `data` does not name."""
        usual = zip(COLUMNS, cls.columns, strict=True)
        return {name: column for name, column in usual if getattr(data, name) is None}


def balance(examples: Sequence[Example], num_classes: int) -> None:
    """Weight targets so that every class counts the same and the mean weight is 1."""
    parts = [e.tokens if "targets" in e.tokens else e.row for e in examples]
    counts = np.zeros(num_classes)
    for part in parts:
        np.add.at(counts, part["targets"], part["weights"])
    total, present = counts.sum(), np.count_nonzero(counts)
    weights = total / present / np.maximum(counts, 1)
    for part in parts:
        part["weights"] = (part["weights"] * weights[part["targets"]]).astype(np.float32)
