"""How a task reads the rows of a table: their columns, their labels, and which belong together."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxlm.config import DataConfig
from jaxlm.data.rows import take
from jaxlm.data.sources import DataError
from jaxlm.tasks.examples import Item

COLUMNS = ("text_column", "pair_column", "label_column")


class RowReader(ABC):
    """What a task says of its rows before it knows their labels."""

    columns: ClassVar[tuple[str | None, ...]]  # usual names of COLUMNS; None: it has none
    is_classifier: ClassVar[bool] = False  # whether its labels are classes, or a number each

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

    @classmethod
    def has_classes(cls, problem: str) -> bool:
        """Whether its labels are the names of classes."""
        return cls.is_classifier and problem != "regression"

    @classmethod
    def missing_columns(cls, data: DataConfig) -> dict[str, str | None]:
        """The usual name of each column that `data` names none for."""
        usual = zip(COLUMNS, cls.columns, strict=True)
        return {name: column for name, column in usual if getattr(data, name) is None}


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
