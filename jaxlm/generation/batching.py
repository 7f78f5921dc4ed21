"""Sizes of few kinds, so that a handful of programs serves all requests; rows of one length."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np
from jaxtyping import Shaped


def bucket(size: int, smallest: int) -> int:
    """The power of two, `smallest` or more, that holds `size`."""
    return max(smallest, 1 << (size - 1).bit_length())


def ragged(
    rows: Sequence[Any], smallest: int, fill: float, dtype: type
) -> Shaped[np.ndarray, "B n"]:
    """Rows filled up to the length, a power of two, that holds the longest."""
    return padded(rows, (len(rows), bucket(max(map(len, rows)), smallest)), fill, dtype)


def padded(
    rows: Sequence[Any], shape: tuple[int, int], fill: float, dtype: type = np.int32
) -> Shaped[np.ndarray, "B T"]:
    """Rows filled up behind, and rows of nothing but `fill` behind them."""
    out = np.full(shape, fill, dtype)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def common(*rows: Sequence[int]) -> list[int]:
    """The tokens that all rows begin with."""
    columns = zip(*rows, strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
