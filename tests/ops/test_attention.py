"""Attention against a NumPy oracle, and masks against literal matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops.attention import (
    attention,
    causal_mask,
    position_mask,
    segment_mask,
)

B, K, G, T, S, H = 2, 2, 3, 4, 5, 7
LONG = 128  # from here on causal attention computes four blocks of queries apart


def heads(num_queries=T, num_keys=S):
    generator = np.random.default_rng(0)
    shapes = ((B, K, G, num_queries, H), (B, K, num_keys, H), (B, K, num_keys, H))
    return [jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in shapes]


def oracle(query, key, value, mask):
    """One row, head and query at a time, in double precision."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    out = np.zeros_like(query)
    for b, k, g, t in np.ndindex(query.shape[:4]):
        scores = key[b, k] @ query[b, k, g, t] / np.sqrt(H)
        scores[~mask[b, t]] = -np.inf
        weights = np.exp(scores - scores.max())
        out[b, k, g, t] = weights / weights.sum() @ value[b, k]
    return out


def ragged_mask(shape=(B, T, S)):
    mask = np.random.default_rng(3).random(shape) < 0.6
    mask[..., 0] = True  # every query may attend to something
    return mask


@pytest.mark.parametrize("shape", [(B, T, S), (1, T, S), (B, 1, S)])
def test_masked_attention_equals_the_oracle(shape):
    query, key, value = heads()
    mask = ragged_mask(shape)
    out = attention(query, key, value, jnp.asarray(mask))
    expected = oracle(query, key, value, np.broadcast_to(mask, (B, T, S)))
    np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("length", [S, LONG])
@pytest.mark.parametrize(("rows", "queries"), [(B, True), (1, True), (B, False)])
def test_a_mask_applies_on_top_of_causal(length, rows, queries):
    query, key, value = heads(length, length)
    mask = ragged_mask((rows, length if queries else 1, length))
    out = attention(query, key, value, jnp.asarray(mask), causal=True)
    expected = oracle(query, key, value, mask & np.tril(np.ones((B, length, length), bool)))
    np.testing.assert_allclose(out, expected, atol=1e-6)


def count_scores(length, **keywords):
    """The number of products of a query and a key that attention computes."""
    program = jax.make_jaxpr(lambda *x: attention(*x, causal=True, **keywords))(
        *heads(length, length)
    )
    products = [e.outvars[0].aval for e in program.eqns if e.primitive.name == "dot_general"]
    return sum(x.size for x in products if x.shape[-1] != H) // (B * K * G)


def test_four_blocks_leave_out_what_is_never_seen():
    assert count_scores(LONG) == LONG**2 * 5 // 8
    assert count_scores(LONG + 4) == (LONG + 4) ** 2 * 5 // 8
    for undivided in (LONG - 4, LONG + 1):
        assert count_scores(undivided) == undivided**2
    assert count_scores(LONG, tap=lambda name, x: x) == LONG**2 * 5 // 8


@pytest.mark.parametrize("masked", [True, False])
def test_four_blocks_have_the_values_and_gradients_of_one(masked):
    inputs, weights = heads(LONG, LONG), heads(LONG, LONG)[0]
    mask = jnp.asarray(ragged_mask((B, LONG, LONG))) if masked else None
    at_once = causal_mask(LONG, LONG)[None] & (True if mask is None else mask)

    def four(inputs):
        return (attention(*inputs, mask, causal=True) * weights).sum()

    def one(inputs):
        return (attention(*inputs, at_once) * weights).sum()

    blocks, whole = (jax.jit(jax.value_and_grad(score))(inputs) for score in (four, one))
    for ours, theirs in zip(*map(jax.tree.leaves, (blocks, whole)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_blocks_drop_independently_and_what_they_keep_is_scaled():
    alike = jnp.zeros((1, 1, 1, LONG, LONG)), jnp.zeros((1, 1, LONG, LONG))
    value = jnp.eye(LONG)[None, None]  # so the output is the dropped probabilities
    key = jax.random.key(0)
    out = attention(*alike, value, causal=True, dropout_rate=0.5, dropout_key=key)[0, 0, 0]
    kept = np.asarray(out > 0)
    expected = np.where(kept, np.tri(LONG) / np.arange(1, LONG + 1)[:, None] / 0.5, 0)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    assert kept[np.tri(LONG, dtype=bool)].mean() == pytest.approx(0.5, abs=0.02)
    first_rows = kept[LONG // 4 :: LONG // 4, : LONG // 4]
    assert (first_rows[1:] != first_rows[:-1]).any(-1).all()  # with one key they would be alike


def test_blocks_that_drop_have_the_values_and_gradients_of_what_they_keep():
    inputs, weights = heads(LONG, LONG), heads(LONG, LONG)[0]
    mask, key = jnp.asarray(ragged_mask((B, LONG, LONG))), jax.random.key(0)
    drop = {"causal": True, "dropout_rate": 0.5, "dropout_key": key}
    # What is kept depends on the shape and the key alone: even weights on one-hot values show it.
    even = jnp.zeros((B, K, G, LONG, LONG)), jnp.zeros((B, K, LONG, LONG))
    kept = attention(*even, jnp.broadcast_to(jnp.eye(LONG), even[1].shape), **drop) > 0

    def four(inputs):
        return (attention(*inputs, mask, **drop) * weights).sum()

    def one(inputs):
        def tap(name, x):
            return jnp.where(kept, x / 0.5, 0) if name == "weights" else x

        return (attention(*inputs, mask, causal=True, tap=tap) * weights).sum()

    blocks, whole = (jax.jit(jax.value_and_grad(score))(inputs) for score in (four, one))
    for ours, theirs in zip(*map(jax.tree.leaves, (blocks, whole)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_bfloat16_attention_scores_in_float32():
    query, key, value = (x.astype(jnp.bfloat16) for x in heads())
    seen = {}
    out = attention(query, key, value, tap=lambda name, x: seen.setdefault(name, x))
    assert (seen["weights"].dtype, out.dtype) == (jnp.float32, jnp.bfloat16)
    expected = oracle(query, key, value, np.ones((B, T, S), bool))
    np.testing.assert_allclose(np.asarray(out, np.float32), expected, atol=0.02)


def test_a_query_that_may_attend_to_nothing_stays_finite():
    query, key, value = heads()
    mask = jnp.zeros((B, T, S), bool)
    out, gradient = jax.value_and_grad(lambda q: attention(q, key, value, mask).sum())(query)
    assert np.isfinite(out)
    assert np.isfinite(gradient).all()


def test_the_tap_sees_the_probabilities_and_may_edit_them():
    query, key, value = heads()
    seen = {}

    def first_key_only(name, x):
        seen[name] = x
        return jnp.zeros_like(x).at[..., 0].set(1) if name == "weights" else x

    out = attention(query, key, value, tap=first_key_only)
    assert seen["weights"].shape == seen["scores"].shape == (B, K, G, T, S)
    np.testing.assert_allclose(jax.nn.softmax(seen["scores"]), seen["weights"], atol=1e-6)
    np.testing.assert_allclose(seen["weights"].sum(-1), 1, atol=1e-6)
    np.testing.assert_array_equal(out, np.broadcast_to(value[:, :, None, :1], out.shape))


@pytest.mark.parametrize("name", ["scores", "weights"])
def test_a_tap_reaches_keys_that_blocks_leave_out(name):
    query, key, value = heads(LONG, LONG)
    future = {"scores": 1e9, "weights": 1.0}

    def last_key_only(seen, x):
        return x.at[..., :-1].set(0).at[..., -1].set(future[name]) if seen == name else x

    out = attention(query, key, value, causal=True, tap=last_key_only)
    np.testing.assert_array_equal(out, np.broadcast_to(value[:, :, None, -1:], out.shape))


def test_watching_four_blocks_shows_what_one_computes():
    query, key, value = heads(LONG, LONG)
    shown, whole = {}, {}
    attention(query, key, value, causal=True, tap=lambda n, x: shown.setdefault(n, x))
    mask = causal_mask(LONG, LONG)[None]
    attention(query, key, value, mask, tap=lambda n, x: whole.setdefault(n, x))
    for name, x in whole.items():
        np.testing.assert_allclose(shown[name], x, atol=1e-5)


def test_dropout_of_the_probabilities_is_unbiased():
    query, key, value = heads()
    keys = jax.random.split(jax.random.key(0), 4000)
    drop = lambda k: attention(query, key, value, dropout_rate=0.3, dropout_key=k)  # noqa: E731
    dropped = jax.jit(jax.vmap(drop))(keys)
    assert dropped.std(0).min() > 0.01
    np.testing.assert_allclose(dropped.mean(0), attention(query, key, value), atol=0.08)


def test_causal_mask_is_literal():
    assert causal_mask(3, 4).astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert causal_mask(2, 4, 1).astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]


def test_position_mask_is_literal():
    positions = jnp.array([[0, 1], [2, 3]])
    assert position_mask(positions, 5).astype(int).tolist() == [
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]],
        [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]],
    ]


def test_segment_mask_is_literal():
    query, key = jnp.array([[0, 1, 1]]), jnp.array([[0, 0, 1, 2]])
    assert segment_mask(query, key).astype(int).tolist() == [
        [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
    ]
