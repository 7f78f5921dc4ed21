"""Whole models and their parts against the reference's, at tiny sizes with ragged masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.hub import export_tensors
from jaxlm.models.trunk import model_frequencies
from jaxlm.nn.block import Attention, init_cache
from jaxlm.nn.layers import FeedForward, Norm
from jaxlm.ops.positions import rotary_angles, rotate
from jaxlm.ops.reductions import cross_entropy
from tests.fixtures.reference import DECODERS, HEADS, MODELS, ROTARY, TRAINED, Record, sources

BLOCK = "layers_1"  # the block whose parts are recorded apart
PART = 1e-5
WHOLE = 2e-5


@pytest.fixture(scope="module", params=sources(MODELS))
def reference(request) -> Record:
    source, name = request.param
    return source(name)


def largest(difference, where=slice(None)):
    return np.abs(np.asarray(difference))[where].max()


def assert_outputs_agree(ours, reference):
    assert len(ours) == len(reference.outputs)
    for our, their in zip(ours, reference.outputs, strict=True):
        real = reference.real if their.shape[:2] == reference.real.shape else slice(None)
        assert largest(our - their, real) < WHOLE


@pytest.mark.parametrize("source", sources(HEADS))
def test_every_head_answers_alike(source):
    make, name = source
    reference = make(name)
    ours = jax.jit(reference.apply)(reference.params)
    assert_outputs_agree(ours, reference)


def test_logits_and_every_hidden_state_agree(reference):
    @jax.jit
    def forward(params):
        seen = {}
        tap = lambda name, x: seen.setdefault(name, x)  # noqa: E731
        return reference.apply(params, tap=tap), seen

    ours, seen = forward(reference.params)
    assert_outputs_agree(ours, reference)
    states = reference.under("hidden/")
    final = reference.config.norm_position == "pre"
    assert len(states) == reference.config.num_layers + 1 + final
    for name, state in states.items():
        assert largest(seen[name] - state, reference.real) < WHOLE, name


@pytest.mark.parametrize("reference", sources(TRAINED), indirect=True)
def test_packed_documents_agree(reference):
    positions = jnp.asarray(reference["packed/position_ids"])
    segments = jnp.cumsum(positions == 0, axis=1)
    logits = jax.jit(reference.model.apply)(
        {"params": reference.params}, reference.ids, positions=positions, segment_ids=segments
    )
    assert largest(logits - reference["packed/logits"]) < WHOLE


@pytest.mark.parametrize("reference", sources(DECODERS), indirect=True)
def test_cached_decoding_in_uneven_chunks_agrees(reference):
    rows, length = slice(0, 2), 7  # the rows whose positions count from 0, up to the padding
    ids, lengths = reference.ids[rows], jnp.array([length, length - 2])
    # The second row goes on two tokens earlier, over the slots that padding filled.
    rest = jnp.stack([ids[0, length : length + 4], ids[1, length - 2 : length + 2]])
    model, config = reference.model, reference.config

    @jax.jit
    def decode(params):
        cache = init_cache(config, 2, config.max_seq_len)
        first, cache = model.apply(params, ids[:, :length], cache, lengths, method="extend")
        second, cache = model.apply(params, rest, cache, method="extend")
        return model.apply(params, jnp.concatenate([first, second], axis=1), method="head")

    logits = np.asarray(decode({"params": reference.params}))
    expected = reference.outputs[0]
    assert largest(logits[0] - expected[0]) < WHOLE
    assert largest(logits[1, : length - 2] - expected[1, : length - 2]) < WHOLE
    assert largest(logits[1, length : length + 2] - expected[1, length - 2 : length]) < WHOLE


def test_gradients_of_every_weight_agree(reference):
    @jax.jit
    @jax.value_and_grad
    def loss(params):
        logits = reference.apply(params)[0][:, :-1]
        losses = cross_entropy(logits, reference.ids[:, 1:])
        weights = reference["loss_weights"]
        return (losses * weights).sum() / weights.sum()

    value, grads = loss(reference.params)
    assert abs(value - reference["loss"]) < PART
    ours, theirs = export_tensors(grads, reference.config), reference.under("gradients/")
    # What the loss does not reach, such as the next-sentence head, has no gradient there.
    unreached = ours.keys() - theirs.keys()
    assert all(largest(ours[name]) == 0 for name in unreached)
    assert theirs.keys() <= ours.keys()
    for name, expected in theirs.items():
        # The gradient of a key bias is zero, and rounding noise on both sides.
        assert largest(ours[name] - expected) < 1e-4 * np.abs(expected).max() + 1e-7, name


def test_attention_agrees(reference):
    config = reference.config

    @jax.jit
    def attend(params, x):
        rotation = None
        if config.positions == "rotary":
            rotation = rotary_angles(reference.positions, model_frequencies(config))
        mask = reference.mask.astype(bool)[:, None]
        causal = config.architecture == "decoder"
        return Attention(config).apply(params, x, mask, causal=causal, rotation=rotation)[0]

    params = {"params": reference.params["backbone"][BLOCK]["attention"]}
    out = attend(params, jnp.asarray(reference["attention/input"]))
    assert largest(out - reference["attention/output"], reference.real) < PART


@pytest.mark.parametrize(
    ("part", "module", "name"),
    [("norm", Norm, "attention_norm"), ("feed_forward", FeedForward, "feed_forward")],
)
def test_norm_and_feed_forward_agree(reference, part, module, name):
    x = jnp.asarray(reference[f"{part}/input"])
    params = {"params": reference.params["backbone"][BLOCK][name]}
    out = jax.jit(module(reference.config).apply)(params, x)
    assert largest(out - reference[f"{part}/output"]) < PART


@pytest.mark.parametrize("reference", sources(ROTARY), indirect=True)
def test_rotary_positions_agree(reference):
    config, heads = reference.config, jnp.asarray(reference["rotary/input"])
    rotation = rotary_angles(reference.positions, model_frequencies(config))
    assert largest(rotate(heads, rotation) - reference["rotary/output"]) < PART
