"""What every task says of itself: how its rows are read, encoded, learned, answered and scored."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxlm.config import DataConfig, FinetuneConfig
from jaxlm.data.errors import DataError
from jaxlm.data.rows import take
from jaxlm.tasks.examples import Example, Item
from jaxlm.tasks.joining import Joiner
from jaxlm.tokenizer import Tokenizer

Outputs = Any  # arrays of a forward pass, or a tuple of them
Sums = dict[str, Array]


@dataclass(eq=False)
class Task(ABC):
    """One task with its labels and the tokenizer that its texts go through.

    `limit` is the most tokens of an example. `notes` counts what was treated specially, in words.
    """

    head: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]] = ("attention_mask", "token_type_ids")  # beside the ids

    libraries: ClassVar[tuple[str, ...]] = ()  # that scores take

    tokenizer: Tokenizer
    limit: int
    labels: tuple[str, ...] = ()
    problem: str = "single_label"
    num_token_types: int = 0
    options: FinetuneConfig = field(default_factory=FinetuneConfig)
    notes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self):
        self.joiner = Joiner(self.tokenizer, self.limit)

    # Equal where the compiled programs are: these depend on the kind and the problem alone.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self._program == other._program

    def __hash__(self) -> int:
        return hash(self._program)

    @property
    def _program(self) -> tuple[type, str]:
        return type(self), self.problem

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """The names of what `score` gives; the first chooses the best checkpoint unless told."""

    @classmethod
    @abstractmethod
    def read(
        cls, where: str, row: Mapping[str, Any], data: DataConfig, problem: str, labelled: bool
    ) -> Item | None:
        """The item of a row; None if it has no text. DataError where a field is not as it must."""

    @classmethod
    def exact(cls, data: DataConfig) -> tuple[str | None, ...]:
        """The columns whose characters are counted, so that nothing may be cleaned off them."""
        return ()

    @classmethod
    def lists(cls, data: DataConfig, problem: str) -> tuple[str | None, ...]:
        """The columns that may hold several texts, which a CSV or TSV file has in one cell."""
        return (data.label_column,) if problem == "multi_label" else ()

    @classmethod
    def labels_in(cls, item: Item) -> Sequence[str]:
        """The names of the classes that an item is labelled with."""
        return ()

    @classmethod
    def group(cls, item: Item) -> object:
        """Items of one group never stand on both sides of a split; None: each is its own."""
        return None

    @abstractmethod
    def encode(self, items: Sequence[Item], labelled: bool = True) -> list[Example]:
        """The examples of items, with what is to be learned if they are labelled."""

    @abstractmethod
    def losses(self, outputs: Outputs, batch: Mapping[str, Array]) -> Sums:
        """Sums over the batch's targets, `loss` and `count` among them."""

    @abstractmethod
    def answer(
        self, items: Sequence[Item], outputs: Sequence[tuple[Example, Outputs]]
    ) -> list[dict[str, Any]]:
        """What the model says of each item, from the outputs of its examples."""

    @abstractmethod
    def score(
        self, items: Sequence[Item], answers: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """The task's metrics of answers to labelled items."""

    def forward(
        self, model: nn.Module, params: Any, batch: Mapping[str, Any], key: Array | None
    ) -> Outputs:
        """The model's outputs for a batch, with dropout if there is a key."""
        return model.apply(
            {"params": params},
            jnp.asarray(batch["ids"]),
            deterministic=key is None,
            rngs=None if key is None else {"dropout": key},
            **{name: batch[name] for name in self.inputs if name in batch},
        )

    def objective(
        self, model: nn.Module, params: Any, batch: Mapping[str, Any], key: Array | None = None
    ) -> Sums:
        """The sums that training and evaluation take of a batch."""
        outputs = self.forward(model, params, batch, key)
        return self.losses(outputs, {name: jnp.asarray(x) for name, x in batch.items()})

    def tokens(self, ids: Sequence[int], types: Sequence[int]) -> dict[str, np.ndarray]:
        """The arrays that every example has; types only for a model that tells two apart."""
        arrays = {"ids": np.array(ids, np.int32)}
        if self.num_token_types > 1:
            arrays["token_type_ids"] = np.array(types, np.int32)
        return arrays


def field_of(where: str, row: Mapping[str, Any], column: str | None, setting: str) -> Any:
    """A field that must be there, null as an empty text."""
    assert column is not None
    value = take(where, dict(row), column, setting)
    return "" if value is None else value


def text_field(
    where: str, row: Mapping[str, Any], column: str | None, setting: str, strip: bool = True
) -> str:
    value = field_of(where, row, column, setting)
    if not isinstance(value, str):
        raise DataError(f"{where} holds {value!r} in column {column!r} where text should be")
    return value.strip() if strip else value


def as_label(value: Any) -> Any:
    """A label, or each one of a list, in one spelling: 1.0 is 1, as a number and as a text."""
    if isinstance(value, list):
        return [as_label(item) for item in value]
    # JSON's true and false stay words: for Python they are 1 and 0 too.
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        value = str(value)
    return re.sub(r"^(-?\d+)\.0+$", r"\1", value.strip()) if isinstance(value, str) else value


def sorted_labels(names: set[str]) -> tuple[str, ...]:
    """Labels in order: numbers by their value, else by the alphabet."""
    if all(re.fullmatch(r"-?\d+", name) for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))
