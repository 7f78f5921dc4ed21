import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.data.pair_batches import MOST_SHAPES, PairOrder, Shape, least_padding, pair_batch


def lengths_of(n=2000, seed=0):
    random = np.random.default_rng(seed)
    source = random.integers(1, 40, n)
    return np.stack([source, np.maximum(1, source + random.integers(-4, 5, n))], axis=1)


def test_an_epoch_has_each_pair_once_in_batches_of_about_so_many_tokens():
    lengths = lengths_of()
    order = PairOrder(lengths, 1024, seed=3)
    for epoch in (0, 1):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        batches = [order.at(step) for step in steps]
        taken = np.concatenate([rows for _, rows in batches])
        assert sorted(taken) == list(range(len(lengths)))
        for shape, rows in batches:
            assert 1 <= len(rows) <= shape.rows
            assert shape.rows * (shape.source + shape.target) <= 1024
            assert (lengths[rows] <= [shape.source, shape.target]).all()
    assert order.epochs_at(2 * order.steps_per_epoch) == 2
    assert len({shape for shape, _ in batches}) <= MOST_SHAPES


def test_a_batch_is_a_function_of_seed_and_step():
    def at(seed, step):
        return PairOrder(lengths_of(), 512, seed).at(step)

    (shape, rows), (again, same) = at(0, 200), at(0, 200)
    assert shape == again
    np.testing.assert_array_equal(rows, same)
    assert any(not np.array_equal(at(0, step)[1], at(1, step)[1]) for step in range(3))


def test_little_of_a_batch_is_padding_and_none_is_nearly_empty():
    lengths = lengths_of(20000)
    order = PairOrder(lengths, 2048, seed=0)
    used = sum(shape.rows * (shape.source + shape.target) for shape, _ in order.epoch(0))
    assert lengths.sum() / used > 0.8
    assert all(2 * len(rows) > shape.rows for shape, rows in order.epoch(0))


def test_few_pairs_make_few_batches():
    order = PairOrder(lengths_of(10), 4096, seed=0)
    assert order.steps_per_epoch == 1
    assert len(order.at(0)[1]) == 10


def test_rows_are_a_multiple_of_the_micro_batches():
    order = PairOrder(lengths_of(), 700, seed=0, multiple=3)
    assert all(shape.rows % 3 == 0 for shape in order.shapes)
    # A pair longer than the batch still has one.
    assert PairOrder(np.array([[90, 90]]), 20, 0, 3).at(0)[0] == Shape(3, 90, 90)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=8),
    st.integers(1, 3),
    st.integers(0, 60),
)
def test_runs_of_least_padding_are_the_best_of_all(pairs, most, smallest):
    lengths = np.array(pairs)
    kinds = np.unique(lengths.max(axis=1))

    def padded(runs):
        parts = [lengths[np.isin(lengths.max(axis=1), run)] for run in runs]
        sizes = [len(part) * part.max(axis=0).sum() for part in parts]
        return sum(sizes) if min(sizes) >= smallest or len(sizes) == 1 else np.inf

    def all_runs(kinds, most):
        yield [kinds]
        if most > 1:
            for i in range(1, len(kinds)):
                for rest in all_runs(kinds[i:], most - 1):
                    yield [kinds[:i], *rest]

    found = least_padding(lengths, most, smallest)
    np.testing.assert_array_equal(np.concatenate(found), kinds)
    assert len(found) <= most
    assert padded(found) == min(map(padded, all_runs(kinds, most)))


def test_what_the_decoder_reads_is_what_it_has_said():
    source, target = np.array([5, 6, 7, 1]), np.array([8, 9, 1])
    batch = pair_batch([source], [target], Shape(2, 5, 4), start=2, pad=0)
    assert batch["source_ids"].tolist() == [[5, 6, 7, 1, 0], [0] * 5]
    assert batch["source_mask"].tolist() == [[1, 1, 1, 1, 0], [1, 0, 0, 0, 0]]
    assert batch["target_ids"].tolist() == [[2, 8, 9, 0], [2, 0, 0, 0]]
    assert batch["targets"].tolist() == [[8, 9, 1, 0], [0] * 4]
    assert batch["weights"].tolist() == [[1, 1, 1, 0], [0] * 4]


@pytest.mark.parametrize("most", [1, 2])
def test_pairs_of_one_length_have_one_shape(most):
    assert len(least_padding(np.full((9, 2), 7), most)) == 1
