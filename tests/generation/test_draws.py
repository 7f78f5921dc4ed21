"""A million draws at the vocabularies of real models: none leaves the allowed tokens."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxlm.generation.sampler import draw
from jaxlm.ops.random import hash_bits, unit_interval

CHANCES = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
ROWS, CALL = 8, 1000  # drawn side by side, and in one call


def allowed_tokens(vocab_size: int) -> np.ndarray:
    return np.linspace(3, vocab_size - 2, len(CHANCES)).astype(int)


def whole_draws(vocab_size: int, keys: jax.Array) -> np.ndarray:
    """Tokens drawn by `draw` itself, all but the allowed ones banned."""
    logits = np.full((len(keys), vocab_size), -np.inf, np.float32)
    logits[:, allowed_tokens(vocab_size)] = np.log(CHANCES)
    return np.asarray(draw(jnp.asarray(logits), keys))


@partial(jax.jit, static_argnums=0)
def quick_draws(vocab_size: int, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What `draw` draws, and the least and greatest uniform number that it has for any token.

    As long as those are inside (0, 1), all noise is finite and a banned token stays at minus
    infinity, so that logarithms are taken at the allowed ones only.
    """
    tokens, logits = allowed_tokens(vocab_size), jnp.log(CHANCES)

    def row(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        bits = hash_bits(key, (vocab_size,))
        noise = -jnp.log(-jnp.log(unit_interval(hash_bits(key, (vocab_size,))[tokens])))
        ends = unit_interval(jnp.stack([bits.min(), bits.max()]))
        return jnp.asarray(tokens)[jnp.argmax(logits + noise)], ends

    drawn, ends = jax.lax.map(row, keys, batch_size=ROWS)
    return drawn, jnp.stack([ends[:, 0].min(), ends[:, 1].max()])


def test_no_noise_is_infinite_whatever_the_bits():
    numbers = unit_interval(jnp.arange(2**23, dtype=jnp.uint32) << 9)
    noise = -jnp.log(-jnp.log(numbers))
    assert bool(jnp.isfinite(noise).all())
    assert 0 < float(numbers[0]) < float(numbers[-1]) < 1
    assert float(unit_interval(jnp.uint32(2**32 - 1))) == float(numbers[-1])


@pytest.mark.parametrize(
    ("vocab_size", "num_draws"),
    [
        (50_257, 2_000),
        (151_936, 2_000),
        pytest.param(50_257, 1_000_000, marks=pytest.mark.slow),
        pytest.param(151_936, 1_000_000, marks=pytest.mark.slow),
    ],
)
def test_no_draw_leaves_the_allowed_tokens_of_a_large_vocabulary(vocab_size, num_draws):
    keys = jax.random.split(jax.random.key(0), num_draws)
    found, ends = zip(
        *(quick_draws(vocab_size, keys[i : i + CALL]) for i in range(0, num_draws, CALL)),
        strict=True,
    )
    drawn = np.concatenate(found)
    assert 0 < np.min(ends) < np.max(ends) < 1
    np.testing.assert_array_equal(drawn[:32], whole_draws(vocab_size, keys[:32]))
    counts = np.bincount(drawn, minlength=vocab_size)[allowed_tokens(vocab_size)]
    assert counts.sum() == num_draws
    assert stats.chisquare(counts, CHANCES * num_draws).pvalue > 1e-4
