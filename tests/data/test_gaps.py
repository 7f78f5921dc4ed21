import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.data.gaps import GapSizes, random_parts, window_for, with_gaps

MARKS, END = np.arange(900, 960), 999  # as many as the largest window has gaps


def filled(source, target):
    """The window that a source with gaps and its target were made from."""
    gaps = {}
    for token in target[:-1].tolist():
        if token in MARKS:
            gap = gaps[token] = []
        else:
            gap.append(token)
    return [t for token in source[:-1].tolist() for t in gaps.get(token, [token])]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 120), st.floats(0.05, 0.6), st.floats(1, 5), st.integers(0, 99))
def test_the_target_fills_the_gaps_of_the_source(length, fraction, mean, seed):
    tokens = np.arange(length)
    hidden, gaps = GapSizes.of(length, fraction, mean)
    source, target = with_gaps(tokens, fraction, mean, MARKS, END, np.random.default_rng(seed))
    assert filled(source, target) == tokens.tolist()
    assert len(source) == length - hidden + gaps + 1
    assert len(target) == hidden + gaps + 1
    # Gaps are apart, or two of them would be one; the marks come in their order.
    where = np.flatnonzero(np.isin(source, MARKS))
    assert (np.diff(where) > 1).all()
    assert source[where].tolist() == MARKS[:gaps].tolist()
    assert source[-1] == target[-1] == END


def test_as_much_is_hidden_as_in_t5():
    # 512 tokens of input take a window of 568, of which 114 are to be written (Raffel et al. 2020).
    window = window_for(512, 0.15, 3.0)
    hidden, gaps = GapSizes.of(window, 0.15, 3.0)
    assert (window, hidden + gaps + 1) == (568, 114)


def test_the_largest_window_that_fits_is_taken():
    for limit in (3, 8, 33, 64):
        window = window_for(limit, 0.15, 3.0)
        hidden, gaps = GapSizes.of(window, 0.15, 3.0)
        assert window - hidden + gaps + 1 <= limit
    assert window_for(2, 0.15, 3.0) == 0


@pytest.mark.parametrize(("total", "parts"), [(1, 1), (4, 2), (5, 5)])
def test_parts_are_of_every_size_that_sums_to_the_whole(total, parts):
    random = np.random.default_rng(0)
    found = [tuple(random_parts(total, parts, random).tolist()) for _ in range(300)]
    assert all(sum(sizes) == total and min(sizes) >= 1 for sizes in found)
    if (total, parts) == (4, 2):
        counts = [found.count(sizes) for sizes in ((1, 3), (2, 2), (3, 1))]
        assert sum(counts) == 300
        assert min(counts) > 70
