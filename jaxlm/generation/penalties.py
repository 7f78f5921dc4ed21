"""Rules that look back: what a row's context holds changes the logits (B, V) of its next token."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32


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
