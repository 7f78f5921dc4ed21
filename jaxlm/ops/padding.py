"""Rows of unlike lengths as arrays of few shapes, so that few programs are compiled. NumPy only."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped


def bucket(size: int, smallest: int, largest: int | None = None) -> int:
    """The power of two that holds `size`, but at least `smallest` and at most `largest`."""
    power = max(smallest, 1 << max(size - 1, 0).bit_length())
    return power if largest is None else min(power, largest)


def pad_rows(
    rows: Sequence[Any], shape: tuple[int, int], fill: float = 0, dtype: Any = np.int32
) -> Shaped[np.ndarray, "B T"]:
    """An array of shape (B, T) that holds the rows, right-padded; rows that lack are all `fill`.

    Raises ValueError where a row is longer than T, and IndexError for more than B rows.
    """
    out = np.full(shape, fill, dtype)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def pad_to_bucket(
    rows: Sequence[Any], smallest: int, fill: float = 0, dtype: Any = np.int32
) -> Shaped[np.ndarray, "B T"]:
    """The rows padded to the `bucket` of the longest."""
    return pad_rows(rows, (len(rows), bucket(max(map(len, rows)), smallest)), fill, dtype)
