"""What stands in the columns of a row: texts, labels, and gaps where neither is."""

import re
from collections.abc import Mapping
from typing import Any

from jaxlm.data.rows import take
from jaxlm.data.sources import DataError


def field_of(where: str, row: Mapping[str, Any], column: str | None, option: str) -> Any:
    """A required field, with null and NaN as an empty text."""
    assert column is not None
    value = take(where, dict(row), column, option)
    return "" if value is None or value != value else value  # NaN is a missing value in tables


def text_field(
    where: str, row: Mapping[str, Any], column: str | None, option: str, strip: bool = True
) -> str:
    value = field_of(where, row, column, option)
    if not isinstance(value, str):
        raise DataError(f"{where} holds {value!r} in column {column!r} where text should be")
    return value.strip() if strip else value


def as_label(value: Any) -> Any:
    """A label, or each in a list, in one spelling: 1.0 is 1, as a number or as text."""
    if isinstance(value, list):
        return [as_label(item) for item in value]
    # true and false of JSON are kept as words, as they are also 1 and 0 in Python.
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        value = str(value)
    return re.sub(r"^(-?\d+)\.0+$", r"\1", value.strip()) if isinstance(value, str) else value


def sorted_labels(names: set[str]) -> tuple[str, ...]:
    """Labels in order: numeric if all are numbers, else alphabetic."""
    if all(re.fullmatch(r"-?\d{1,300}", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def is_gap(value: Any) -> bool:
    """Whether a cell has no label: null, NaN or blank."""
    if isinstance(value, str):
        return value.strip() in ("", "nan", "NaN")
    return value is None or value != value
