"""What readings take: indices of any kind that is in range, traced ones, texts of both sides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.inspection import (
    InspectionError,
    ablated,
    analogy,
    direct_attribution,
    forward,
    label_target,
    logit_difference,
    logit_lens,
    residual_stream,
    run,
    run_generation,
    states_of_texts,
    text_target,
    token_target,
)
from tests.fixtures.tiny import random_ids
from tests.inspection.models import tiny_loaded, translator

IDS = random_ids(1, 7)


@pytest.fixture(scope="module")
def loaded():
    return tiny_loaded("rotary")


@pytest.fixture(scope="module")
def both():
    return translator()


def test_positions_count_from_either_end(loaded):
    logits = run(loaded, IDS)[0]
    for position in (-7, -1, 0, 6):
        expected = jax.nn.log_softmax(logits[0, position])[3]
        assert token_target(3, position)(logits) == expected
        assert direct_attribution(loaded, IDS, 3, position=position).logit == logits[0, position, 3]
    for position in (-8, 7):
        for call in (
            lambda p: token_target(3, p)(logits),
            lambda p: logit_difference(3, 5, p)(logits),
            lambda p: direct_attribution(loaded, IDS, 3, position=p),
        ):
            with pytest.raises(InspectionError, match="from -7 to 6"):
                call(position)


def test_indices_may_be_arrays_and_traced(loaded):
    logits = run(loaded, IDS)[0]
    tokens = jnp.array([0, 3, 18])
    expected = jax.nn.log_softmax(logits[0, -1])[tokens]
    for transform in (jax.vmap, lambda f: jax.jit(jax.vmap(f))):
        found = transform(lambda token: token_target(token)(logits))(tokens)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    found = jax.vmap(lambda p: logit_difference(tokens[1], tokens[0], p)(logits))(jnp.arange(7))
    np.testing.assert_allclose(found, logits[0, :, 3] - logits[0, :, 0], rtol=1e-6)
    totals = jax.vmap(lambda token: direct_attribution(loaded, IDS, token).logit)(tokens)
    np.testing.assert_allclose(totals, logits[0, -1, tokens], rtol=1e-5)
    assert label_target(np.int64(2))(logits[:, -1]) == jax.nn.log_softmax(logits[0, -1])[2]


def test_ids_may_be_traced_and_are_checked_where_they_are_known(loaded):
    def last(ids):
        return forward(loaded.model, loaded.params, ids)[0][:, -1]

    rows = random_ids(3, 5)
    np.testing.assert_allclose(jax.jit(last)(rows), last(rows), atol=1e-5)
    by_row = jax.vmap(lambda row: last(row[None])[0])(rows)
    np.testing.assert_allclose(by_row, last(rows), atol=1e-5)
    with pytest.raises(InspectionError, match="hold the token 19, but those of the model are 0 to"):
        jax.jit(lambda: last(jnp.array([[1, 2]])) + last(np.array([[19]])))()


def test_a_text_of_which_all_follows_the_first_token_is_a_target(loaded):
    logits = run(loaded, IDS)[0]
    whole = text_target(IDS, 1)(logits)
    last = text_target(IDS[0].tolist(), 6)(logits)
    assert last == token_target(int(IDS[0, 6]), 5)(logits)
    assert whole < last


def test_one_text_alone_is_a_list_of_one(loaded):
    np.testing.assert_array_equal(states_of_texts(loaded, "abc"), states_of_texts(loaded, ["abc"]))
    assert analogy(loaded, "b", "c") == analogy(loaded, ["b"], ["c"])


def test_no_head_may_be_switched_off(loaded):
    logits, _ = run(loaded, IDS, edit=ablated(loaded, "heads", 0, []))
    np.testing.assert_allclose(logits, run(loaded, IDS)[0], atol=1e-6)


def test_a_text_is_the_source_that_an_encoder_decoder_was_trained_on(both):
    source = both.tokenizer.encode_sources(["abc"])
    target = [[2, *both.tokenizer.encode("cba")]]  # 2 opens a target
    expected, _ = run(both, source, target_ids=target)
    np.testing.assert_array_equal(run(both, "abc", target_ids="cba")[0], expected)
    np.testing.assert_array_equal(run(both, "abc", target_ids=target[0])[0], expected)
    steps = run_generation(both, "", source_ids="abc", max_new_tokens=2, temperature=0.0)
    assert steps[0].ids.tolist() == [[2]]
    assert steps[0].tokens == expected[0, 0].argmax()


def test_the_lens_of_an_encoder_decoder_reads_its_decoder(both):
    source, target = jnp.array(both.tokenizer.encode_sources(["abc"])), jnp.array([[2, 3, 4]])
    stream = residual_stream(both.model, both.params, source, target_ids=target)
    assert stream.shape == (3, 1, 3, 16)
    logits = logit_lens(both.model, both.params, stream)
    np.testing.assert_allclose(
        logits[-1], run(both, source, target_ids=target)[0], atol=1e-5, rtol=1e-5
    )
