"""Weights in int8: a quarter of the memory, generation as ever, and the loss told truly."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.artifact import Loaded
from jaxlm.config import JaxlmError
from jaxlm.generation import Lookup, beam_search, compare_params, quantized
from jaxlm.generation.quantize import num_bytes
from jaxlm.loading import export
from jaxlm.models import make_model
from jaxlm.tokenizer import AbsentTokenizer
from tests.fixtures.tiny import params_of, tiny_config
from tests.generation.reference import Reference, greedy, likeliest, ragged

LIMIT = 48


def in_int8(model, params) -> dict:
    loaded = Loaded(model, params, AbsentTokenizer("none is needed"), model.config)
    return quantized(loaded).params


@pytest.fixture(scope="module", params=["learned", "rotary"])
def fp32(request) -> Reference:
    return Reference(request.param, LIMIT)


@pytest.fixture(scope="module")
def int8(fp32) -> Reference:
    other = copy.copy(fp32)
    other.params = in_int8(fp32.model, fp32.params)
    return other


def test_decoding_follows_the_int8_model_batched_sliding_and_speculating(int8):
    prompts = ragged([3, 30, 2 * LIMIT, 1, 9], vocab_size=19)
    expected = [int8.generate(prompt, 40, likeliest) for prompt in prompts]
    for speculation in (None, Lookup()):
        out = greedy(int8.model, int8.params, prompts, 40, speculation=speculation)
        assert out == expected


def test_a_single_beam_is_greedy_in_int8_too(int8):
    (prompt,) = ragged([5], vocab_size=19)
    found = beam_search(int8.model, int8.params, [prompt], max_new_tokens=12, num_beams=1)
    assert found.tokens[0, 0].tolist() == int8.generate(prompt, 12, likeliest)


@pytest.mark.parametrize("structure", ["learned", "rotary"])
def test_the_weights_take_about_a_quarter_of_the_memory(structure):
    config = tiny_config(structure, vocab_size=400, d_model=128, head_dim=32, d_ff=256)
    model = make_model(config)
    params = params_of(model, jnp.zeros((1, 1), jnp.int32))
    held = in_int8(model, params)
    assert num_bytes(held) < 0.3 * num_bytes(params)
    assert num_bytes(in_int8(model, held)) == num_bytes(held)  # once more changes nothing


def test_the_comparison_is_what_numpy_makes_of_the_logits(fp32):
    rows = ragged([LIMIT + 7, 5, 1], vocab_size=19)
    other = copy.copy(fp32)
    other.params = jax.tree.map(lambda x: 0.8 * x, fp32.params)
    found = compare_params(fp32.model, fp32.params, other.params, rows)
    windows = [rows[0][:LIMIT], rows[0][LIMIT:], rows[1]]
    sums = np.zeros(3)
    for window in windows:
        for end in range(1, len(window)):
            p, q = (np.asarray(jax.nn.log_softmax(m.logits(window[:end]))) for m in (fp32, other))
            sums += [(np.exp(p) * (p - q)).sum(), -p[window[end]], -q[window[end]]]
    count = sum(len(window) - 1 for window in windows)
    divergence, first, second = sums / count
    assert found.num_tokens == count
    assert found.divergence == pytest.approx(divergence, rel=1e-4)
    assert found.perplexity == pytest.approx(np.exp(first), rel=1e-4)
    assert found.other_perplexity == pytest.approx(np.exp(second), rel=1e-4)


def test_int8_says_nearly_what_fp32_says(fp32, int8):
    found = compare_params(fp32.model, fp32.params, int8.params, ragged([LIMIT], vocab_size=19))
    assert 0 < found.divergence < 2e-3
    assert found.other_perplexity == pytest.approx(found.perplexity, rel=0.05)


def test_the_same_params_differ_by_nothing(fp32):
    found = compare_params(fp32.model, fp32.params, fp32.params, [[1, 2, 3]])
    assert found.divergence == pytest.approx(0, abs=1e-6)
    assert found.other_perplexity == pytest.approx(found.perplexity, rel=1e-6)


def test_single_tokens_cannot_be_compared(fp32):
    with pytest.raises(JaxlmError, match="two tokens or more"):
        compare_params(fp32.model, fp32.params, fp32.params, [[1], []])


def test_a_model_that_does_not_continue_texts_is_refused():
    model = make_model(tiny_config(architecture="encoder", head="none"))
    with pytest.raises(JaxlmError, match="does not generate texts"):
        in_int8(model, {})


def test_int8_is_not_exported(int8, tmp_path):
    loaded = Loaded(int8.model, int8.params, AbsentTokenizer("none"), int8.model.config)
    with pytest.raises(JaxlmError, match="int8 are for generation alone"):
        export(loaded, tmp_path / "theirs")
