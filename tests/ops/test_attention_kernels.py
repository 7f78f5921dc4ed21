"""The fused kernels against attention in jax.numpy, and which of them a program gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.models import CausalLM
from jaxlm.ops import attention as ops
from jaxlm.ops.attention import Segments, attention, kernels_for, plain_attention
from jaxlm.ops.attention_kernels import cudnn_attention, has_cudnn, splash_attention
from tests.fixtures.tiny import tiny_config

B, K, G, H, LONG = 2, 1, 2, 8, 128
ON_GPU = jax.default_backend() == "gpu"


def heads(length=LONG, size=H, dtype="bfloat16", rows=B):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((rows, K, G, length, size), (rows, K, length, size), (rows, K, length, size))
    return [jax.random.normal(k, s).astype(dtype) for k, s in zip(keys, shapes, strict=True)]


def packed(length=LONG):
    """Two rows of documents, the second with padding at its end."""
    ids = jnp.asarray(np.arange(length) // np.array([[length // 3], [length // 2 + 1]]))
    return Segments(ids, jnp.where(jnp.arange(length) < jnp.array([[length], [100]]), ids, -1))


def padded(length=LONG):
    kept = jnp.arange(length) < jnp.array([[length], [length // 2]])
    return Segments(jnp.zeros((B, 1), jnp.int32), jnp.where(kept, 0, -1))


MASKS = {"none": lambda: None, "packed": packed, "padded": padded}


def outputs_and_gradients(function, inputs):
    weights = heads()[0].astype(jnp.float32)

    def score(inputs):
        out = function(*inputs)
        return (out.astype(jnp.float32) * weights).sum(), out

    return jax.jit(jax.grad(score, has_aux=True))(inputs)


def assert_alike(ours, theirs, tolerance):
    for x, y in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        x, y = (np.asarray(z, np.float32) for z in (x, y))
        np.testing.assert_allclose(x, y, atol=tolerance * np.abs(y).max())


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [True, False])
def test_cudnn_is_given_what_attention_means(mask, causal):
    segments = MASKS[mask]()
    booleans = None if segments is None else segments.mask

    def ours(*inputs):
        implementation = "cudnn" if ON_GPU and has_cudnn() else "xla"
        return cudnn_attention(*inputs, booleans, causal=causal, implementation=implementation)

    def plain(*inputs):
        return plain_attention(*inputs, segments, causal=causal)

    inputs = heads()
    assert_alike(outputs_and_gradients(ours, inputs), outputs_and_gradients(plain, inputs), 0.03)


@pytest.mark.parametrize(("mask", "causal"), [("none", True), ("packed", True), ("padded", False)])
def test_splash_attention_is_given_what_attention_means(mask, causal):
    segments = MASKS[mask]()
    pair = None if segments is None else (segments.query, segments.key)
    inputs = heads()
    ours = splash_attention(*inputs, pair, causal=causal, interpret=True)
    plain = plain_attention(*inputs, segments, causal=causal)
    assert_alike(ours, plain, 0.03)


@pytest.mark.parametrize("size", [20, 36])
def test_heads_that_no_kernel_takes_are_computed_in_jax_numpy(size, monkeypatch):
    monkeypatch.setattr("jaxlm.ops.attention_kernels.has_cudnn", lambda: True)
    query, key, value = heads(size=size, length=LONG - 2)
    assert kernels_for(query, key, None) == {}
    exact = plain_attention(query, key, value, None, causal=True)
    np.testing.assert_array_equal(attention(query, key, value, causal=True), exact)


def test_the_kernel_is_chosen_by_what_it_takes(monkeypatch):
    def chosen(mask=None, **shape):
        query, key, _ = heads(**shape)
        return set(kernels_for(query, key, mask))

    monkeypatch.setattr("jaxlm.ops.attention_kernels.has_cudnn", lambda: True)
    assert chosen() == chosen(packed()) == {"cuda", "tpu"}
    assert chosen(jnp.ones((B, 1, LONG), bool)) == {"cuda"}
    assert chosen(length=LONG - 2) == {"cuda"}
    assert chosen(length=LONG - 1) == set()
    assert chosen(size=20) == {"tpu"}
    assert chosen(dtype="float32") == chosen(length=1) == set()
    monkeypatch.setattr("jaxlm.ops.attention_kernels.has_cudnn", lambda: False)
    assert chosen() == {"tpu"}


def test_on_a_cpu_the_choice_changes_no_bit():
    inputs = heads()
    plain = jax.jit(lambda *x: plain_attention(*x, packed(), causal=True))(*inputs)
    chosen = jax.jit(lambda *x: attention(*x, packed(), causal=True))(*inputs)
    np.testing.assert_array_equal(chosen, plain)


def test_an_own_attention_function_gets_masks_as_booleans():
    seen = []

    def watched(query, key, value, mask=None, **options):
        seen.append(mask)
        return ops.attention(query, key, value, mask, **options)

    ids = jnp.zeros((2, 4), jnp.int32)
    model = CausalLM(tiny_config(), attention=watched)
    keywords = {"segment_ids": jnp.asarray([[0, 0, 1, 1], [0, 1, 1, 1]])}
    keywords["attention_mask"] = jnp.asarray([[1, 1, 1, 1], [1, 1, 1, 0]])
    jax.eval_shape(lambda key: model.init(key, ids, **keywords), jax.random.key(0))
    assert seen[0].dtype == bool
    assert seen[0].shape == (2, 4, 4)
