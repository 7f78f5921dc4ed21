"""Rules that restrict a distribution and draw from it: pure functions of logits (B, V).

The settings are arrays with a value a row, so a new temperature compiles nothing. No rule sorts a
vocabulary, which takes more than ten times as long as finding the value where its cut lies.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxlm.ops.random import hash_bits

# Below this a temperature is as good as zero, and differences of logits may overflow.
COLDEST = 1e-6


def greedy(logits: Float[Array, "B V"]) -> Int[Array, " B"]:
    """The likeliest token of each row, the first of equals."""
    return jnp.argmax(logits, axis=-1)


def draw(logits: Float[Array, "B V"], keys: Key[Array, " B"]) -> Int[Array, " B"]:
    """A token of each row from the softmax of its logits, by Gumbel's maximum (Gumbel 1954).

    Rows with the same key and nearly the same logits mostly draw the same token, which
    speculation lives on.
    """

    def noise(key: Array) -> Float[Array, " V"]:
        # The middles of 2^24 equal steps from 0 to 1. A draw of threefry's bits would take longer
        # than all else that sampling does.
        steps = (hash_bits(key, logits.shape[1:]) >> 8).astype(jnp.float32)
        return -jnp.log(-jnp.log((steps + 0.5) / 2**24))

    return jnp.argmax(logits + jax.vmap(noise)(keys), axis=-1)


def scale(logits: Float[Array, "B V"], temperature: Float[Array, " B"]) -> Float[Array, "B V"]:
    """Logits, less their maximum, over the temperature (Ackley et al. 1985)."""
    logits = logits - jnp.max(logits, axis=-1, keepdims=True)
    return logits / jnp.maximum(temperature, COLDEST)[:, None]


def keep_top_k(logits: Float[Array, "B V"], top_k: Int[Array, " B"]) -> Float[Array, "B V"]:
    """Minus infinity for every token with `top_k` or more tokens above it (Fan et al. 2018).

    So tokens that tie with the last one kept are kept as well.
    """
    return cut(logits, jnp.ones_like(logits), top_k.astype(logits.dtype))


def keep_top_p(logits: Float[Array, "B V"], top_p: Float[Array, " B"]) -> Float[Array, "B V"]:
    """Minus infinity where the tokens above hold `top_p` of the probability (Holtzman et al. 2020).

    So tokens that tie with the last one kept are kept as well, and one token always is.
    """
    # Sums of rounded probabilities may reach 1 too early: all of it is never enough.
    enough = jnp.where(top_p < 1, top_p, jnp.inf)
    return cut(logits, jax.nn.softmax(logits, axis=-1), enough)


def keep_min_p(logits: Float[Array, "B V"], min_p: Float[Array, " B"]) -> Float[Array, "B V"]:
    """Minus infinity below `min_p` of the likeliest token's probability (Nguyen et al. 2024)."""
    least = jnp.max(logits, axis=-1) + jnp.log(min_p)
    return jnp.where(logits < least[:, None], -jnp.inf, logits)


def cut(
    logits: Float[Array, "B V"], weights: Float[Array, "B V"], enough: Float[Array, " B"]
) -> Float[Array, "B V"]:
    """Keep each row's largest logits, as few as weigh `enough` together, and all where none do.

    The largest sufficient threshold is found bit by bit in the order of floats, hence exactly.
    """

    def set_bit(i: Int[Array, ""], ranks: Array) -> Array:
        trial = ranks | (jnp.uint32(1 << 31) >> i.astype(jnp.uint32))
        above = logits >= value_of(trial)[:, None]
        sufficient = jnp.sum(jnp.where(above, weights, 0), axis=-1) >= enough
        return jnp.where(sufficient, trial, ranks)

    ranks = jax.lax.fori_loop(0, 32, set_bit, jnp.zeros(logits.shape[0], jnp.uint32))
    threshold = value_of(ranks)
    return jnp.where(logits < threshold[:, None], -jnp.inf, logits)


def value_of(rank: Array) -> Float[Array, "..."]:
    """The float of a 32-bit rank: ranks order floats, as a sign and a magnitude do not."""
    sign = jnp.uint32(1 << 31)
    bits = jnp.where(rank & sign, rank ^ sign, ~rank)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
