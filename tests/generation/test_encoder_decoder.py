"""Targets of an encoder-decoder: the one loop, beams, speculation and constraints serve them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.artifact import Loaded
from jaxlm.generation import (
    DraftModel,
    GenerationError,
    Lookup,
    beam_search,
    best_texts,
    generate,
    generate_tokens,
    stream,
    translate,
)
from jaxlm.models import Seq2SeqLM
from jaxlm.tokenizer import train_tokenizer
from tests.fixtures.tiny import params_of, random_ids, tiny_config, tiny_model

START, END, NEW = 1, 0, 6
PAIR = {"architecture": "encoder_decoder", "num_encoder_layers": 1, "decoder_start_id": START}
MODEL = Seq2SeqLM(tiny_config("sinusoidal", **PAIR))
PARAMS = params_of(MODEL, random_ids(1, 1))
SOURCES = np.asarray(random_ids(3, 7, seed=3))
LENGTHS = np.array([7, 2, 5])


@jax.jit
def log_probs(source, target):
    return jax.nn.log_softmax(MODEL.apply({"params": PARAMS}, source, target))


def greedy(source):
    """The likeliest token after each, by the whole model on the source without padding."""
    target = [START]
    for _ in range(NEW):
        ids = np.zeros((1, NEW + 1), np.int32)
        ids[0, : len(target)] = target
        target.append(int(np.argmax(log_probs(source[None], ids)[0, len(target) - 1])))
    return target[1:]


@pytest.fixture(scope="module")
def expected():
    return [greedy(source[:n]) for source, n in zip(SOURCES, LENGTHS, strict=True)]


def decode(**options):
    return generate_tokens(MODEL, PARAMS, SOURCES, LENGTHS, NEW, temperature=0, **options)


def test_targets_of_ragged_sources_are_those_of_each_alone(expected):
    np.testing.assert_array_equal(decode(), expected)


@pytest.mark.parametrize("speculation", [Lookup(width=3), DraftModel(MODEL, PARAMS, width=2)])
def test_speculation_changes_no_token(expected, speculation):
    np.testing.assert_array_equal(decode(speculation=speculation), expected)


def test_a_draft_model_of_another_kind_is_refused():
    model, variables = tiny_model()
    with pytest.raises(GenerationError, match="same kind"):
        decode(speculation=DraftModel(model, variables["params"]))


def test_past_its_context_a_target_goes_on_with_its_own_source():
    long = generate_tokens(MODEL, PARAMS, SOURCES, LENGTHS, 20, temperature=0)
    for i, (source, length) in enumerate(zip(SOURCES, LENGTHS, strict=True)):
        alone = generate_tokens(MODEL, PARAMS, source[None, :length], None, 20, temperature=0)
        np.testing.assert_array_equal(long[i], alone[0])


def test_forced_tokens_stand_first_and_last(expected):
    found = decode(forced_first=7, forced_last=9)
    assert (found[:, 0] == 7).all()
    assert (found[:, -1] == 9).all()
    beams = beam_search(
        MODEL, PARAMS, [s.tolist() for s in SOURCES], NEW, 3, forced_first=7, forced_last=9
    )
    assert (beams.tokens[:, 0, 0] == 7).all()
    assert (beams.tokens[:, 0, -1] == 9).all()


def test_beams_find_the_likeliest_target_of_each_ragged_source():
    """With as many beams as there are sequences but one token nothing is overlooked."""
    sources = [s[:n].tolist() for s, n in zip(SOURCES, LENGTHS, strict=True)]
    found = beam_search(MODEL, PARAMS, sources, 2, 19)
    for i, source in enumerate(sources):
        ids = np.array(list(itertools.product(range(19), repeat=2)), np.int32)
        targets = np.concatenate([np.full((len(ids), 1), START), ids[:, :1]], axis=1)
        rows = np.repeat([source], len(ids), axis=0)
        scores = np.asarray(log_probs(jnp.asarray(rows), jnp.asarray(targets)))
        totals = scores[np.arange(len(ids))[:, None], [[0, 1]], ids].sum(axis=1)
        np.testing.assert_array_equal(found.tokens[i, 0], ids[np.argmax(totals)])
        np.testing.assert_allclose(found.scores[i, 0], totals.max() / 2, atol=1e-5)


def test_beams_reorder_no_source():
    """What is read of the sources stays one copy a row, however many beams there are."""
    sources, start = jnp.asarray(SOURCES), jnp.full((12, 1), START)
    cache = MODEL.apply({"params": PARAMS}, sources, 12, method="start_cache")
    taken = cache.take(jnp.repeat(jnp.arange(3), 4))
    assert taken.source is cache.source
    hidden, _ = MODEL.apply({"params": PARAMS}, start, taken, method="extend")
    alone, _ = MODEL.apply({"params": PARAMS}, start[:3], cache, method="extend")
    np.testing.assert_allclose(hidden, np.repeat(alone, 4, axis=0), atol=1e-5)


def test_sources_are_checked():
    model, variables = tiny_model()
    with pytest.raises(GenerationError, match="token 19"):
        generate_tokens(MODEL, PARAMS, np.full((1, 2), 19))
    with pytest.raises(GenerationError, match="13 tokens"):
        generate_tokens(MODEL, PARAMS, np.ones((1, 13), np.int32))
    open_model = Seq2SeqLM(tiny_config("sinusoidal", **PAIR | {"decoder_start_id": None}))
    with pytest.raises(GenerationError, match="decoder_start_id"):
        generate_tokens(open_model, PARAMS, SOURCES)
    with pytest.raises(GenerationError, match="reads no sources"):
        beam_search(model, variables["params"], [[1]], 2, sources=[[1]])


@pytest.fixture(scope="module")
def loaded():
    tokenizer = train_tokenizer("char", ["abcdefghij"], specials=("<pad>", "</s>", "<s>"))
    config = tiny_config("sinusoidal", **PAIR | {"vocab_size": tokenizer.vocab_size})
    model = Seq2SeqLM(config)
    return Loaded(model, params_of(model, random_ids(1, 1)), tokenizer, config)


def test_texts_are_translated_one_by_one_or_with_beams(loaded):
    texts = ["abc", "j", "fghij"]
    found = translate(loaded, texts, max_new_tokens=5)
    assert found == [translate(loaded, text, max_new_tokens=5) for text in texts]
    assert found == generate(loaded, texts, max_new_tokens=5, temperature=0)
    assert found[0] == "".join(stream(loaded, "abc", max_new_tokens=5, temperature=0))
    best = translate(loaded, texts, max_new_tokens=5, num_beams=3, n_best=2)
    assert [[text for text, _ in row] for row in best] == [
        [text for text, _ in row] for row in best_texts(loaded, texts, 5, 3, 2)
    ]
    assert translate(loaded, texts, max_new_tokens=5, num_beams=3) == [row[0][0] for row in best]


def test_a_target_can_be_made_to_match(loaded):
    (text,) = generate(loaded, ["abc"], max_new_tokens=5, temperature=0, regex="(ab)+c")
    assert "abababc".find(text[:1]) == 0


def test_what_cannot_be_translated_is_told(loaded):
    model, variables = tiny_model()
    other = Loaded(model, variables["params"], loaded.tokenizer, model.config)
    with pytest.raises(GenerationError, match="no encoder_decoder"):
        translate(other, ["a"])
    with pytest.raises(GenerationError, match="the model reads 12"):
        translate(loaded, ["abcdefghijabc"])
