"""Buckets are powers of two within bounds, and padding leaves the rows what they are."""

import numpy as np
import pytest

from jaxlm.ops.padding import bucket, pad_rows, pad_to_bucket


@pytest.mark.parametrize(
    ("size", "smallest", "largest", "expected"),
    [
        (0, 1, None, 1),
        (1, 1, None, 1),
        (5, 1, None, 8),
        (8, 1, None, 8),
        (9, 1, None, 16),
        (9, 128, None, 128),
        (129, 128, None, 256),
        (129, 128, 200, 200),
        (9, 32, 20, 20),
    ],
)
def test_a_bucket_is_the_next_power_of_two_within_its_bounds(size, smallest, largest, expected):
    assert bucket(size, smallest, largest) == expected


def test_rows_are_padded_on_the_right_and_missing_rows_are_all_padding():
    out = pad_rows([[1, 2], [], np.array([3])], (4, 3), -1)
    assert out.tolist() == [[1, 2, -1], [-1, -1, -1], [3, -1, -1], [-1, -1, -1]]
    assert out.dtype == np.int32
    assert pad_rows([[0.5]], (1, 2), np.inf, np.float32).tolist() == [[0.5, np.inf]]


def test_a_row_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="broadcast"):
        pad_rows([[1, 2, 3]], (1, 2))


def test_rows_are_padded_to_the_bucket_of_the_longest():
    assert pad_to_bucket([[1], [1, 2, 3]], 2).shape == (2, 4)
    assert pad_to_bucket([[], []], 8).shape == (2, 8)
