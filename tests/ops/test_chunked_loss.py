"""The chunked loss of a head against that of all logits at once."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops.chunked_loss import MOST_LOGITS, chunked_target_sums, loss_chunk
from jaxlm.ops.reductions import target_sums

B, T, D, V = 3, 10, 6, 11


def inputs():
    keys = jax.random.split(jax.random.key(0), 5)
    params = {"table": jax.random.normal(keys[0], (V, D)), "bias": jax.random.normal(keys[1], (V,))}
    hidden = jax.random.normal(keys[2], (B, T, D))
    targets = jax.random.randint(keys[3], (B, T), 0, V)
    weights = jax.random.uniform(keys[4], (B, T)).at[1, 4:].set(0)
    return params, hidden, targets, weights


def head(params, hidden):
    return jnp.tanh(hidden) @ params["table"].T + params["bias"]


def both(scale, **options):
    """Sums and gradients of `scale` times the loss: of all logits, and in chunks of four."""
    params, hidden, targets, weights = inputs()

    def whole(params, hidden):
        sums = target_sums(head(params, hidden), targets, weights, **options)
        return scale * sums["loss"], sums

    def chunked(params, hidden):
        sums = chunked_target_sums(
            lambda x: head(params, x), hidden, targets, weights, 4, **options
        )
        return scale * sums["loss"], sums

    gradient = lambda f: jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))  # noqa: E731
    return gradient(whole)(params, hidden), gradient(chunked)(params, hidden)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accuracy": False},
        {"smoothing": 0.1},
        {"z_loss": 1e-2},
        {"smoothing": 0.2, "z_loss": 1},
    ],
    ids=["plain", "no-accuracy", "smoothing", "z-loss", "both"],
)
@pytest.mark.parametrize("scale", [1.0, -0.25])
def test_sums_and_gradients_equal_those_of_all_logits(options, scale):
    whole, chunked = both(scale, **options)
    assert jax.tree.structure(whole) == jax.tree.structure(chunked)
    for theirs, ours in zip(*map(jax.tree.leaves, (whole, chunked)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6 * max(1, np.abs(theirs).max()))


def largest_array(function, *inputs):
    """The most elements that an array of a function's program has, inside loops too."""
    shapes = re.findall(r"[a-z]\w*\[([\d,]+)\]", str(jax.make_jaxpr(function)(*inputs)))
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)


def test_no_array_has_the_logits_of_all_positions():
    params, hidden, targets, weights = inputs()

    def loss(params):
        def of_chunk(x):
            return head(params, x)

        return chunked_target_sums(of_chunk, hidden, targets, weights, 2)["loss"]

    assert largest_array(jax.grad(loss), params) < B * T * V
    whole = lambda p: target_sums(head(p, hidden), targets, weights)["loss"]  # noqa: E731
    assert largest_array(jax.grad(whole), params) >= B * T * V


def test_small_logits_are_held_at_once_and_large_ones_in_powers_of_two():
    assert loss_chunk(12, 64, 65) is None
    chunk = loss_chunk(8, 1024, 50257)
    assert chunk == 128
    assert 8 * chunk * 50257 <= MOST_LOGITS
    assert loss_chunk(8, 16, 65, asked=4) == 4
    assert loss_chunk(8, 16, 65, asked=16) is None
    assert loss_chunk(10**6, 16, 10**6) == 1
