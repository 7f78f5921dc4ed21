"""The choice of the next token: the rules in their order, with the options of each row."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt32

from jaxlm.generation import rules
from jaxlm.generation.options import OPTIONS, GenerationOptions
from jaxlm.generation.rules import COLDEST, Context, Rule
from jaxlm.ops.padding import pad_to_bucket
from jaxlm.ops.random import hash_bits, unit_interval

ALL = 2**32 - 1  # a word of `allowed` with all of its bits set


@flax.struct.dataclass
class OptionArrays:
    """The options of a batch as arrays: `options["top_k"]` holds each row's, as every number."""

    numbers: dict[str, Shaped[Array, " B"]]
    bias_tokens: Int[Array, "B n"]  # filled up with V
    bias: Float[Array, "B n"]
    stop_tokens: Int[Array, "B m"]  # filled up with V
    allowed: UInt32[Array, "B W"]  # a bit a token

    def __getitem__(self, name: str) -> Shaped[Array, " B"]:
        return self.numbers[name]

    def row_keys(self) -> Key[Array, " B"]:
        """The key that each row's draws derive theirs from."""
        return jax.vmap(lambda seed, row: jax.random.fold_in(jax.random.key(seed), row))(
            self["seed"], self["row"]
        )


def option_arrays(
    rows: Sequence[GenerationOptions], batch_size: int, vocab_size: int
) -> OptionArrays:
    """The options of each row as arrays; rows that fill the batch have those of the first."""
    filled = [*rows, *[rows[0]] * (batch_size - len(rows))]

    def column(name: str) -> Shaped[np.ndarray, " B"]:
        if name == "seed":
            return np.array([row.seed % 2**32 for row in filled], np.uint32)
        values = [getattr(row, name) for row in filled]
        values = [OPTIONS[name].neutral if value is None else value for value in values]
        return np.array(values, np.int32 if OPTIONS[name].type is int else np.float32)

    biases = [dict(r.bias) | dict.fromkeys(r.banned_tokens, -np.inf) for r in filled]
    # A negative id would count from the vocabulary's end.
    stops = [[token for token in r.stop_tokens if 0 <= token < vocab_size] for r in filled]
    arrays: dict[str, Any] = {
        "numbers": {name: column(name) for name, option in OPTIONS.items() if option.is_number},
        "bias_tokens": pad_to_bucket([list(b) for b in biases], 16, vocab_size),
        "bias": pad_to_bucket([list(b.values()) for b in biases], 16, 0, np.float32),
        "stop_tokens": pad_to_bucket(stops, 8, vocab_size),
        "allowed": np.full((batch_size, -(-vocab_size // 32)), ALL, np.uint32),
    }
    # Filled by NumPy: JAX would compile a program to do it.
    return OptionArrays(**jax.device_put(arrays))


def sample_tokens(
    logits: Float[Array, "B V"],
    context: Context,
    options: OptionArrays,
    keys: Key[Array, " B"],
    rule: Rule | None = None,
) -> Int[Array, " B"]:
    """The next token of each row: its likeliest, or one drawn with its own of the row keys.

    A caller's own rule sees the logits before all others.
    """
    logits = logits if rule is None else rule(logits, context)
    logits = penalise(logits, context, options)
    temperature = options["temperature"]

    def drawn() -> Int[Array, " B"]:
        token_keys = jax.vmap(jax.random.fold_in)(keys, context.num_generated)
        tokens = draw(restrict(logits, options), token_keys)
        return jnp.where(temperature < COLDEST, greedy(logits), tokens)

    return jax.lax.cond(jnp.any(temperature >= COLDEST), drawn, lambda: greedy(logits))


def greedy(logits: Float[Array, "B V"]) -> Int[Array, " B"]:
    """The likeliest token of each row, the first of equals."""
    return jnp.argmax(logits, axis=-1)


def draw(logits: Float[Array, "B V"], keys: Key[Array, " B"]) -> Int[Array, " B"]:
    """A token of each row from the softmax of its logits, by Gumbel's maximum (Gumbel 1954).

    Rows with the same key and nearly the same logits mostly draw the same token, which
    speculation lives on.
    """

    def noise(key: Array) -> Float[Array, " V"]:
        # Bits of threefry would take longer than all else that sampling does. The noise is finite,
        # or it would choose tokens that are banned.
        return -jnp.log(-jnp.log(unit_interval(hash_bits(key, logits.shape[1:]))))

    return jnp.argmax(logits + jax.vmap(noise)(keys), axis=-1)


def where_asked(
    asked: Bool[Array, " B"], rule: Callable[..., Array], logits: Array, *options: Array | Context
) -> Float[Array, "B V"]:
    """The rule's logits; a rule that no row asks for costs nothing."""
    return jax.lax.cond(jnp.any(asked), rule, lambda x, *_: x, logits, *options)


def penalise(
    logits: Float[Array, "B V"], context: Context, options: OptionArrays
) -> Float[Array, "B V"]:
    """The logits after penalties, bias and bans; unchanged in a row where all tokens are banned.

    Where only some tokens are allowed and these are all banned, the row keeps the others instead,
    so that its next token shows it.
    """
    V = logits.shape[1]
    places = jnp.arange(context.tokens.shape[1])
    present = places < context.lengths[:, None]
    generated = present & (places >= context.num_prompt[:, None])
    early = context.num_generated < options["min_new_tokens"]

    def repetition(x: Array, penalty: Array) -> Array:
        return rules.penalise_repetition(x, rules.count_tokens(context.tokens, present, V), penalty)

    def frequency(x: Array, presence: Array, frequency: Array) -> Array:
        counts = rules.count_tokens(context.tokens, generated, V)
        return rules.penalise_frequency(x, counts, presence, frequency)

    def no_stop(x: Array, stops: Array) -> Array:
        banned = jnp.where(early[:, None], -jnp.inf, jnp.zeros(stops.shape))
        return rules.add_bias(x, stops, banned)

    penalty = options["repetition_penalty"]
    x = where_asked(penalty != 1, repetition, logits, penalty)
    penalties = options["presence_penalty"], options["frequency_penalty"]
    x = where_asked((penalties[0] != 0) | (penalties[1] != 0), frequency, x, *penalties)
    ngram = options["no_repeat_ngram"]
    x = where_asked(ngram > 0, rules.ban_repeated_ngrams, x, context, ngram)
    biased = options.bias_tokens[:, 0] < V
    x = where_asked(biased, rules.add_bias, x, options.bias_tokens, options.bias)
    x = where_asked(early, no_stop, x, options.stop_tokens)
    constrained = ~jnp.all(options.allowed == jnp.uint32(ALL), axis=1)
    x = where_asked(constrained, rules.allow_only, x, options.allowed)
    forced = jnp.where(context.num_generated == 0, options["forced_first"], -1)
    last = context.num_generated + 1 == options["max_new_tokens"]
    forced = jnp.where(last & (options["forced_last"] >= 0), options["forced_last"], forced)
    x = where_asked(forced >= 0, rules.force, x, forced)
    possible = jnp.any(x > -jnp.inf, axis=1, keepdims=True)
    others = where_asked(constrained, rules.allow_only, logits, ~options.allowed)
    return jnp.where(possible, x, jnp.where(constrained[:, None], others, logits))


def restrict(logits: Float[Array, "B V"], options: OptionArrays) -> Float[Array, "B V"]:
    """The logits whose softmax is the distribution that a row is sampled from."""
    top_k, top_p, min_p = options["top_k"], options["top_p"], options["min_p"]
    x = rules.scale(logits, options["temperature"])
    x = where_asked(top_k < logits.shape[1], rules.keep_top_k, x, top_k)
    x = where_asked(top_p < 1, rules.keep_top_p, x, top_p)
    return where_asked(min_p > 0, rules.keep_min_p, x, min_p)
