"""The rules of sampling, each a pure function of logits (B, V): penalties, bans and restrictions.

Their options are arrays with a value a row, so that a new temperature compiles nothing. No rule
sorts the vocabulary, which takes more than ten times as long as a search for the value of the cut.
"""

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

# Below this a temperature is as good as zero, and differences of logits may overflow.
COLDEST = 1e-6


@flax.struct.dataclass
class Context:
    """The tokens that each row's next one follows."""

    tokens: Int[Array, "B S"]
    lengths: Int[Array, " B"]  # how many of a row's tokens count; what lies behind may be anything
    num_prompt: Int[Array, " B"]  # how many of them are the prompt's
    num_generated: Int[Array, " B"]  # altogether, those that sliding dropped included

    def append(self, new: Int[Array, " B"], where: Bool[Array, " B"]) -> "Context":
        """The context with one more token in the rows given."""
        rows = jnp.arange(len(self.lengths))
        place = jnp.where(where, self.lengths, self.tokens.shape[1])
        return dataclasses.replace(
            self,
            tokens=self.tokens.at[rows, place].set(new, mode="drop"),
            lengths=self.lengths + where,
            num_generated=self.num_generated + where,
        )


# A rule of a caller's own: logits (B, V) and the tokens before them, to logits (B, V).
Rule = Callable[[Array, Context], Array]


def count_tokens(
    tokens: Int[Array, "B S"], where: Bool[Array, "B S"], vocab_size: int
) -> Int[Array, "B V"]:
    """How often each token of the vocabulary occurs among those given."""
    rows = jnp.arange(len(tokens))[:, None]
    place = jnp.where(where, tokens, vocab_size)
    zeros = jnp.zeros((len(tokens), vocab_size), jnp.int32)
    return zeros.at[rows, place].add(1, mode="drop")


def penalise_repetition(
    logits: Float[Array, "B V"], counts: Int[Array, "B V"], penalty: Float[Array, " B"]
) -> Float[Array, "B V"]:
    """Positive logits of tokens seen over the penalty, negative ones times it (Keskar et al. 2019).

    Prompt and generated tokens count alike.
    """
    factor = jnp.where(logits > 0, 1 / penalty[:, None], penalty[:, None])
    return jnp.where(counts > 0, logits * factor, logits)


def penalise_frequency(
    logits: Float[Array, "B V"],
    counts: Int[Array, "B V"],
    presence: Float[Array, " B"],
    frequency: Float[Array, " B"],
) -> Float[Array, "B V"]:
    """Logits less `presence` for a token generated before, and `frequency` for each time."""
    return logits - presence[:, None] * (counts > 0) - frequency[:, None] * counts


def runs_before(
    tokens: Int[Array, "B S"], lengths: Int[Array, " B"], longest: Int[Array, ""] | int
) -> Int[Array, "B S"]:
    """How many tokens just before each place equal the row's last ones; at most `longest`.

    -1 at the places from the row's end on: what stands there follows nothing.
    """
    places = jnp.arange(tokens.shape[1])

    # In most texts no place is left after one or two tokens.
    def unfinished(carry: tuple) -> Bool[Array, ""]:
        i, equal, _ = carry
        return (i < longest) & jnp.any(equal)

    def compare(carry: tuple) -> tuple:
        i, equal, runs = carry
        newest = jnp.take_along_axis(tokens, jnp.maximum(lengths - 1 - i, 0)[:, None], axis=1)
        equal &= (jnp.roll(tokens, i + 1, axis=1) == newest) & (places > i)
        return i + 1, equal, runs + equal

    inside = places < lengths[:, None]
    start = (jnp.int32(0), inside, jnp.where(inside, 0, -1))
    return jax.lax.while_loop(unfinished, compare, start)[2]


def ban_repeated_ngrams(
    logits: Float[Array, "B V"], context: Context, ngram: Int[Array, " B"]
) -> Float[Array, "B V"]:
    """Minus infinity for tokens that would end an n-gram a second time; 0 bans none.

    Paulus et al. 2018.
    """
    runs = runs_before(context.tokens, context.lengths, jnp.max(ngram) - 1)
    ends = (runs >= ngram[:, None] - 1) & (runs >= 0) & (ngram[:, None] > 0)
    return jnp.where(count_tokens(context.tokens, ends, logits.shape[1]) > 0, -jnp.inf, logits)


def add_bias(
    logits: Float[Array, "B V"], tokens: Int[Array, "B n"], bias: Float[Array, "B n"]
) -> Float[Array, "B V"]:
    """Logits with a bias added to those of some tokens; tokens of V or more stand for none."""
    rows = jnp.arange(len(logits))[:, None]
    return logits.at[rows, tokens].add(bias, mode="drop")


def allow_only(logits: Float[Array, "B V"], allowed: UInt32[Array, "B W"]) -> Float[Array, "B V"]:
    """Minus infinity for tokens whose bit is not set: bit v % 32 of word v // 32 for token v."""
    tokens = jnp.arange(logits.shape[1])
    bits = allowed[:, tokens // 32] >> (tokens % 32).astype(jnp.uint32)
    return jnp.where(bits & 1, logits, -jnp.inf)


def force(logits: Float[Array, "B V"], forced: Int[Array, " B"]) -> Float[Array, "B V"]:
    """Zero for a row's forced token and minus infinity for the others; below 0 it has none."""
    only = jnp.where(jnp.arange(logits.shape[1]) == forced[:, None], 0.0, -jnp.inf)
    return jnp.where(forced[:, None] >= 0, only, logits)


def scale(logits: Float[Array, "B V"], temperature: Float[Array, " B"]) -> Float[Array, "B V"]:
    """Logits, less their maximum, over the temperature (Ackley et al. 1985)."""
    logits = logits - jnp.max(logits, axis=-1, keepdims=True)
    return logits / jnp.maximum(temperature, COLDEST)[:, None]


def keep_top_k(logits: Float[Array, "B V"], top_k: Int[Array, " B"]) -> Float[Array, "B V"]:
    """Minus infinity for every token with `top_k` or more tokens above it (Fan et al. 2018).

    So tokens that tie with the last one kept are kept as well.
    """
    return keep_largest(logits, jnp.ones_like(logits), top_k.astype(logits.dtype))


def keep_top_p(logits: Float[Array, "B V"], top_p: Float[Array, " B"]) -> Float[Array, "B V"]:
    """Minus infinity where the tokens above hold `top_p` of the probability (Holtzman et al. 2020).

    So tokens that tie with the last one kept are kept as well, and one token always is.
    """
    # Sums of rounded probabilities may reach 1 too early: all of it is never enough.
    enough = jnp.where(top_p < 1, top_p, jnp.inf)
    return keep_largest(logits, jax.nn.softmax(logits, axis=-1), enough)


def keep_min_p(logits: Float[Array, "B V"], min_p: Float[Array, " B"]) -> Float[Array, "B V"]:
    """Minus infinity below `min_p` of the likeliest token's probability (Nguyen et al. 2024)."""
    least = jnp.max(logits, axis=-1) + jnp.log(min_p)
    return jnp.where(logits < least[:, None], -jnp.inf, logits)


def keep_largest(
    logits: Float[Array, "B V"], weights: Float[Array, "B V"], enough: Float[Array, " B"]
) -> Float[Array, "B V"]:
    """Keep each row's largest logits, as few as weigh `enough` together, and all where none do.

    The largest sufficient threshold is found bit by bit in the order of floats, hence exactly.
    """

    def set_bit(i: Int[Array, ""], ranks: Array) -> Array:
        trial = ranks | (jnp.uint32(1 << 31) >> i.astype(jnp.uint32))
        above = logits >= float_of_rank(trial)[:, None]
        sufficient = jnp.sum(jnp.where(above, weights, 0), axis=-1) >= enough
        return jnp.where(sufficient, trial, ranks)

    ranks = jax.lax.fori_loop(0, 32, set_bit, jnp.zeros(logits.shape[0], jnp.uint32))
    threshold = float_of_rank(ranks)
    return jnp.where(logits < threshold[:, None], -jnp.inf, logits)


def float_of_rank(rank: Array) -> Float[Array, "..."]:
    """The float of a 32-bit rank: ranks order floats, as a sign and a magnitude do not."""
    sign = jnp.uint32(1 << 31)
    bits = jnp.where(rank & sign, rank ^ sign, ~rank)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
