"""The choice of the next token: the rules in their order, with settings for each row."""

from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from jaxlm.generation import penalties, sampling
from jaxlm.generation.batching import ragged
from jaxlm.generation.penalties import Context
from jaxlm.generation.settings import Settings


@flax.struct.dataclass
class Choice:
    """Settings as arrays, a value a row; see `Settings` for what they mean."""

    temperature: Float[Array, " B"]
    top_k: Int[Array, " B"]  # V keeps every token
    top_p: Float[Array, " B"]
    min_p: Float[Array, " B"]
    repetition: Float[Array, " B"]
    presence: Float[Array, " B"]
    frequency: Float[Array, " B"]
    ngram: Int[Array, " B"]  # 0: none
    min_new: Int[Array, " B"]
    bias_tokens: Int[Array, "B n"]  # filled up with V
    bias: Float[Array, "B n"]
    stops: Int[Array, "B m"]  # filled up with V
    allowed: UInt32[Array, "B W"]  # a bit a token
    seed: UInt32[Array, " B"]
    row: Int[Array, " B"]

    def row_keys(self) -> Key[Array, " B"]:
        """The key that each row's draws derive theirs from."""
        return jax.vmap(lambda seed, i: jax.random.fold_in(jax.random.key(seed), i))(
            self.seed, self.row
        )


def choose(
    logits: Float[Array, "B V"], context: Context, choice: Choice, keys: Key[Array, " B"]
) -> Int[Array, " B"]:
    """The next token of each row: its likeliest, or one drawn with its own of the row keys."""
    logits = look_back(logits, context, choice)

    def drawn() -> Int[Array, " B"]:
        token_keys = jax.vmap(jax.random.fold_in)(keys, context.num_generated)
        tokens = sampling.draw(restrict(logits, choice), token_keys)
        return jnp.where(choice.temperature < sampling.COLDEST, sampling.greedy(logits), tokens)

    hot = jnp.any(choice.temperature >= sampling.COLDEST)
    return jax.lax.cond(hot, drawn, lambda: sampling.greedy(logits))


def where_asked(
    asked: Bool[Array, " B"], rule: Callable[..., Array], logits: Array, *settings: Array | Context
) -> Float[Array, "B V"]:
    """The rule's logits; a rule that no row asks for costs nothing."""
    return jax.lax.cond(jnp.any(asked), rule, lambda x, *_: x, logits, *settings)


def look_back(logits: Float[Array, "B V"], context: Context, choice: Choice) -> Float[Array, "B V"]:
    """The logits after penalties, bias and bans; those as they were where all tokens are banned.

    Where only some tokens are allowed and these are banned, one that is not allowed tells so.
    """
    V = logits.shape[1]
    places = jnp.arange(context.tokens.shape[1])
    present = places < context.lengths[:, None]
    generated = present & (places >= context.num_prompt[:, None])

    def repetition(x: Array, penalty: Array) -> Array:
        return penalties.penalise_repetition(
            x, penalties.count_tokens(context.tokens, present, V), penalty
        )

    def frequency(x: Array, presence: Array, frequency: Array) -> Array:
        counts = penalties.count_tokens(context.tokens, generated, V)
        return penalties.penalise_frequency(x, counts, presence, frequency)

    def no_stop(x: Array, stops: Array) -> Array:
        early = (context.num_generated < choice.min_new)[:, None]
        return penalties.add_bias(x, stops, jnp.where(early, -jnp.inf, jnp.zeros(stops.shape)))

    x = where_asked(choice.repetition != 1, repetition, logits, choice.repetition)
    asked = (choice.presence != 0) | (choice.frequency != 0)
    x = where_asked(asked, frequency, x, choice.presence, choice.frequency)
    asked = choice.ngram > 0
    x = where_asked(asked, penalties.ban_repeated_ngrams, x, context, choice.ngram)
    asked = choice.bias_tokens[:, 0] < V
    x = where_asked(asked, penalties.add_bias, x, choice.bias_tokens, choice.bias)
    x = where_asked(context.num_generated < choice.min_new, no_stop, x, choice.stops)
    asked = ~jnp.all(choice.allowed == jnp.uint32(2**32 - 1), axis=1)
    x = where_asked(asked, penalties.allow_only, x, choice.allowed)
    possible = jnp.any(x > -jnp.inf, axis=1, keepdims=True)
    others = where_asked(asked, penalties.allow_only, logits, ~choice.allowed)
    return jnp.where(possible, x, jnp.where(asked[:, None], others, logits))


def restrict(logits: Float[Array, "B V"], choice: Choice) -> Float[Array, "B V"]:
    """The logits whose softmax is the distribution that a row is sampled from."""
    x = sampling.scale(logits, choice.temperature)
    x = where_asked(choice.top_k < logits.shape[1], sampling.keep_top_k, x, choice.top_k)
    x = where_asked(choice.top_p < 1, sampling.keep_top_p, x, choice.top_p)
    return where_asked(choice.min_p > 0, sampling.keep_min_p, x, choice.min_p)


def choice_of(rows: Sequence[Settings], batch_size: int, vocab_size: int) -> Choice:
    """The settings of each row as arrays, those of the first for the rows that fill the batch."""
    V = vocab_size
    filled = [*rows, *[rows[0]] * (batch_size - len(rows))]

    # Filled by NumPy: JAX would compile a program to do it.
    def column(values: Sequence[float | int], dtype: type) -> Array:
        return jax.device_put(np.asarray(values, dtype))

    biases = [dict(r.bias) | dict.fromkeys(r.banned_tokens, -np.inf) for r in filled]
    # A negative id would count from the vocabulary's end.
    stops = [[token for token in r.stop_tokens if 0 <= token < V] for r in filled]
    return Choice(
        temperature=column([r.temperature for r in filled], np.float32),
        top_k=column([V if r.top_k is None else min(r.top_k, V) for r in filled], np.int32),
        top_p=column([1 if r.top_p is None else r.top_p for r in filled], np.float32),
        min_p=column([r.min_p or 0 for r in filled], np.float32),
        repetition=column([r.repetition_penalty for r in filled], np.float32),
        presence=column([r.presence_penalty for r in filled], np.float32),
        frequency=column([r.frequency_penalty for r in filled], np.float32),
        ngram=column([r.no_repeat_ngram or 0 for r in filled], np.int32),
        min_new=column([r.min_new_tokens for r in filled], np.int32),
        bias_tokens=jax.device_put(ragged([list(b) for b in biases], 16, V, np.int32)),
        bias=jax.device_put(ragged([list(b.values()) for b in biases], 16, 0, np.float32)),
        stops=jax.device_put(ragged(stops, 8, V, np.int32)),
        allowed=jax.device_put(np.full((batch_size, -(-V // 32)), 2**32 - 1, np.uint32)),
        seed=column([r.seed % 2**32 for r in filled], np.uint32),
        row=column([r.row for r in filled], np.int32),
    )
