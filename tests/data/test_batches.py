import itertools

import numpy as np
import pytest

from jaxlm.data import TokenStore, epochs_at, eval_batches, train_batch
from jaxlm.data.batches import epoch_starts

T = 8


def make_store(num_tokens=1000, starts=(0,)):
    # Each token is its own place, so that a batch tells where it was cut from.
    tokens = np.arange(num_tokens, dtype=np.uint16)
    return TokenStore(tokens, np.array(starts, np.int64), num_tokens, "")


def rows(store, steps, seed=0, batch_size=10):
    return [row for step in steps for row in train_batch(store, seed, step, batch_size, T)["ids"]]


def test_targets_are_the_next_tokens():
    batch = train_batch(make_store(), 0, 0, 10, T)
    assert set(batch) == {"ids", "targets"}
    for array in batch.values():
        assert array.shape == (10, T)
        assert array.dtype == np.int32
    np.testing.assert_array_equal(batch["ids"] + 1, batch["targets"])
    np.testing.assert_array_equal(np.diff(batch["ids"]), 1)


def test_a_batch_depends_on_the_seed_and_the_step_alone():
    store = make_store()
    first = train_batch(store, 3, 7, 10, T)["ids"]
    train_batch(store, 3, 90, 10, T)
    epoch_starts.cache_clear()
    np.testing.assert_array_equal(train_batch(store, 3, 7, 10, T)["ids"], first)
    assert (train_batch(store, 4, 7, 10, T)["ids"] != first).any()
    assert (train_batch(store, 3, 8, 10, T)["ids"] != first).any()


def test_an_epoch_has_every_window_once_and_batches_straddle_epochs():
    store = make_store()
    num_windows = (1000 - T) // T
    seen = rows(store, range(37))
    for epoch in range(2):
        starts = np.sort([row[0] for row in seen[epoch * num_windows : (epoch + 1) * num_windows]])
        np.testing.assert_array_equal(np.diff(starts), T)
    assert num_windows % 10
    assert epochs_at(store, 37, 10, T) == 370 / num_windows


def test_the_order_and_the_phase_are_drawn_anew_each_epoch():
    store = make_store()
    starts = np.array([row[0] for row in rows(store, range(124))]).reshape(10, 124)
    assert len({tuple(epoch) for epoch in starts}) == 10
    assert len({epoch[0] % T for epoch in starts}) > 3
    assert (np.diff(starts[0]) < 0).any()


@pytest.mark.parametrize("num_tokens", [T + 1, T + 2, 2 * T, 2 * T + 1, 3 * T])
def test_every_place_of_a_short_text_is_reached_and_none_beyond(num_tokens):
    store = make_store(num_tokens)
    seen = set()
    for step in range(200):
        batch = train_batch(store, 0, step, 2, T)
        np.testing.assert_array_equal(batch["ids"] + 1, batch["targets"])
        seen |= set(batch["targets"].flat)
    assert seen == set(range(1, num_tokens))


def test_documents_are_told_apart():
    store = make_store(12, starts=(0, 2, 9))
    (batch,) = eval_batches(store, 2, T, mask_documents=True)
    expected = {
        "ids": [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 0, 0, 0, 0, 0]],
        "targets": [[1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 0, 0, 0, 0, 0]],
        "segment_ids": [[1, 1, 2, 2, 2, 2, 2, 2], [1, 2, 2, 0, 0, 0, 0, 0]],
        "positions": [[0, 1, 0, 1, 2, 3, 4, 5], [0, 0, 1, 0, 0, 0, 0, 0]],
        "weights": [[1, 0, 1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0, 0, 0]],
    }
    assert set(batch) == set(expected)
    for name, array in batch.items():
        np.testing.assert_array_equal(array, expected[name], name)
        assert array.dtype == (np.float32 if name == "weights" else np.int32)


def test_training_tells_documents_apart_by_the_same_rule():
    starts = np.array([0, 3, 40, 41, 500])
    store = make_store(starts=starts)
    for step in range(20):
        batch = train_batch(store, 0, step, 10, T, mask_documents=True)
        document = np.searchsorted(starts, batch["ids"], side="right")
        follows = np.searchsorted(starts, batch["targets"], side="right")
        np.testing.assert_array_equal(batch["weights"], document == follows)
        np.testing.assert_array_equal(batch["segment_ids"], document - document[:, :1] + 1)
        fresh = np.isin(batch["ids"][:, 1:], starts)
        np.testing.assert_array_equal(batch["positions"][:, 1:] == 0, fresh)
        assert (batch["positions"][:, 0] == 0).all()


@pytest.mark.parametrize("num_tokens", [2, T, T + 1, T + 2, 5 * T, 5 * T + 1, 77])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_evaluation_has_every_token_but_the_first_as_a_target_once(num_tokens, batch_size):
    store = make_store(num_tokens)
    targets = []
    for batch in eval_batches(store, batch_size, T):
        assert batch["ids"].shape == batch["targets"].shape == (batch_size, T)
        assert set(batch) == {"ids", "targets", "weights"}
        held = batch["weights"] == 1
        assert held.any()
        np.testing.assert_array_equal(batch["ids"][held] + 1, batch["targets"][held])
        assert (batch["ids"][~held] == 0).all()
        assert (batch["ids"][:, 0] % T == 0).all()
        targets += batch["targets"][held].tolist()
    assert targets == list(range(1, num_tokens))


def test_the_first_windows_of_evaluation_start_at_multiples_of_the_window():
    batches = eval_batches(make_store(), 4, T)
    starts = [batch["ids"][:, 0].tolist() for batch in itertools.islice(batches, 2)]
    assert starts == [[0, 8, 16, 24], [32, 40, 48, 56]]
