import math
from collections import Counter

import numpy as np
import pytest

from jaxlm.config import DataConfig
from jaxlm.data import prepare, witten_bell


def test_the_known_figures_of_shakespeare():
    data = prepare(DataConfig())
    losses = witten_bell(data.train.tokens, data.val.tokens, data.tokenizer.vocab_size)
    known = {1: 3.347, 2: 2.486, 3: 2.049, 4: 1.774, 5: 1.669}
    assert losses == pytest.approx(known, abs=1e-3)


def by_the_formula(train, val, vocab_size, order):
    """The same model token by token, contexts running on from the end of the training text."""

    def probability(history, word):
        if history is None:
            return 1 / vocab_size
        n = len(history)
        followers = Counter(
            train[i] for i in range(n, len(train)) if train[i - n : i] == list(history)
        )
        lower = probability(history[1:] if history else None, word)
        total = sum(followers.values()) + len(followers)
        return (followers[word] + len(followers) * lower) / total if total else lower

    whole = train + val
    places = range(len(train), len(whole))
    losses = [-math.log(probability(tuple(whole[i - order + 1 : i]), whole[i])) for i in places]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_each_order_follows_the_formula(dtype):
    random = np.random.default_rng(0)
    # Ids near the top of the type, so that packed pairs would overflow if they could.
    top = np.iinfo(dtype).max
    tokens = (top - random.integers(6, size=400) ** 2).tolist()
    train, val = tokens[:300], tokens[300:]
    losses = witten_bell(np.array(train, dtype), np.array(val, dtype), top + 1, orders=(1, 2, 4))
    assert list(losses) == [1, 2, 4]
    for order, loss in losses.items():
        assert loss == pytest.approx(by_the_formula(train, val, top + 1, order), abs=1e-9)


def test_a_training_text_shorter_than_the_order_is_enough():
    losses = witten_bell(np.array([3]), np.array([3, 1, 2]), 5)
    assert all(math.isfinite(loss) for loss in losses.values())
