"""Beam search at its edges; beside the reference it stands in test_parity.py."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.artifact import Loaded
from jaxlm.config import JaxlmError
from jaxlm.generation import beam_search, best_texts
from jaxlm.tokenizer import train_tokenizer
from tests.fixtures.tiny import tiny_model

V = 4


@pytest.fixture(scope="module")
def small():
    return tiny_model("learned", vocab_size=V, max_seq_len=16, num_layers=1)


def every_sequence(model, variables, prompt: list[int], length: int) -> list[tuple[float, list]]:
    """All sequences of a length with their log-probability a token, best first."""
    found = []
    for tokens in itertools.product(range(V), repeat=length):
        ids = jnp.array([[*prompt, *tokens]])
        log_probs = np.asarray(jax.nn.log_softmax(model.apply(variables, ids)[0]))
        places = range(len(prompt) - 1, ids.shape[1] - 1)
        total = sum(log_probs[place, ids[0, place + 1]] for place in places)
        found.append((total / length, list(tokens)))
    return sorted(found, reverse=True)


def test_beams_that_hold_every_sequence_find_the_best_and_no_others(small):
    model, variables = small
    for length, exist in ((1, V), (2, V * V)):
        expected = every_sequence(model, variables, [1, 2], length)
        found = beam_search(model, variables["params"], [[1, 2]], length, num_beams=20, num_best=20)
        assert found.counts[0].tolist() == [length] * exist + [0] * (20 - exist)
        assert found.tokens[0, :exist, :length].tolist() == [tokens for _, tokens in expected]
        np.testing.assert_allclose(found.scores[0, :exist], [s for s, _ in expected], rtol=1e-4)
        assert (found.scores[0, exist:] == -np.inf).all()


def test_every_token_may_end_a_sequence(small):
    model, variables = small
    found = beam_search(
        model, variables["params"], [[1]], 3, num_beams=2, num_best=2, stop_tokens=[0, 1, 2, 3, 9]
    )
    assert found.counts.tolist() == [[1, 1]]


def test_there_are_no_more_texts_than_exist():
    tokenizer = train_tokenizer("char", ["abc"], specials=[])
    model, variables = tiny_model("learned", vocab_size=3, max_seq_len=16, num_layers=1)
    loaded = Loaded(model, variables["params"], tokenizer, model.config)
    (texts,) = best_texts(loaded, ["ab"], max_new_tokens=1, num_beams=8, num_best=8)
    assert sorted(text for text, _ in texts) == ["a", "b", "c"]
    assert all(-20 < score < 0 for _, score in texts)


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([[1], []], {}, "prompt 1 is empty"),
        ([[V]], {}, "prompt 0 holds token 4, but the model's are 0 to 3"),
        ([[1]], {"length_penalty": float("nan")}, "length_penalty must be finite"),
        ([[1]], {"length_penalty": float("inf")}, "length_penalty must be finite"),
        ([[1]], {"num_best": 5}, "num_best must be from 1 to num_beams"),
        ([[1]], {"max_new_tokens": 17}, "do not fit the model's context of 16"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused(small, prompts, settings, message):
    model, variables = small
    with pytest.raises(JaxlmError, match=message):
        beam_search(model, variables["params"], prompts, **settings)
