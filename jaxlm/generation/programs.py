"""The compiled programs of generation: prefill, decode, and slide past the context limit.

The prefill caches all but the last token of a prompt, so that every logit is made, and every token
chosen, in the one loop of `decode`.
"""

import dataclasses
from collections import Counter
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxlm.generation.sampling import Sampling, choose
from jaxlm.models import CausalLM
from jaxlm.nn.cache import KVCache, init_cache

CHUNK = 64  # tokens a dispatch

# How often each program has been traced, and so at most compiled, since import.
compiles: Counter[str] = Counter()


@flax.struct.dataclass
class State:
    """A batch between two tokens: `newest` of each row is not in the cache yet."""

    cache: KVCache
    newest: Int[Array, " B"]
    done: Bool[Array, " B"]
    num_generated: Int[Array, ""]


@flax.struct.dataclass
class Rule:
    """How the next tokens of a batch are chosen, and which of them end a row."""

    sampling: Sampling
    seed: UInt32[Array, ""]
    stops: Int[Array, " n"]  # padded with -1
    pad_id: Int[Array, ""]


@partial(jax.jit, static_argnames=("model", "num_slots"))
def prefill(
    model: CausalLM,
    params: Any,
    ids: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    num_slots: int,
) -> State:
    """Cache all but the last token of each row; a row of length 0 fills up the batch."""
    compiles["prefill"] += 1
    cached = jnp.maximum(lengths - 1, 0)
    cache = init_cache(model.config, len(ids), num_slots)
    _, cache = extend(model, params, ids, cache, cached)
    newest = jnp.take_along_axis(ids, cached[:, None], axis=1)[:, 0]
    return State(cache, newest, lengths == 0, jnp.int32(0))


@partial(jax.jit, static_argnames="model", donate_argnames="state")
def decode(
    model: CausalLM, params: Any, state: State, rule: Rule, most: Int[Array, ""]
) -> tuple[State, Int[Array, "B n"], Int[Array, ""]]:
    """Generate `most` tokens a row; fewer when all rows have stopped, or one has filled its cache.

    Returns the tokens in a buffer of CHUNK columns, and how many of them there are.
    """
    compiles["decode"] += 1
    batch_size = len(state.newest)
    fold_in = jax.random.fold_in
    row_keys = jax.vmap(fold_in, (None, 0))(jax.random.key(rule.seed), jnp.arange(batch_size))

    def unfinished(carry: tuple) -> Bool[Array, ""]:
        state, _, count = carry
        full = state.cache.lengths == state.cache.num_slots
        return (count < most) & ~jnp.all(state.done) & ~jnp.any(full)

    def step(carry: tuple) -> tuple:
        state, out, count = carry
        hidden, cache = extend(model, params, state.newest[:, None], state.cache)
        logits = head(model, params, hidden)[:, 0]
        keys = jax.vmap(fold_in, (0, None))(row_keys, state.num_generated)
        newest = choose(logits, rule.sampling, keys)
        new = jnp.where(state.done, rule.pad_id, newest)
        out = jax.lax.dynamic_update_slice(out, new[:, None], (0, count))
        done = state.done | jnp.any(newest[:, None] == rule.stops, axis=1)
        # A row that has stopped goes on in an empty cache, so that it never fills it.
        cache = KVCache(cache.layers, jnp.where(done, 0, cache.lengths))
        return State(cache, newest, done, state.num_generated + 1), out, count + 1

    out = jnp.full((batch_size, CHUNK), rule.pad_id, jnp.int32)
    return jax.lax.while_loop(unfinished, step, (state, out, jnp.int32(0)))


@partial(jax.jit, static_argnames="model", donate_argnames="state")
def slide(
    model: CausalLM, params: Any, state: State, kept: Int[Array, " T"], row: Int[Array, ""]
) -> State:
    """Give one row a new cache of the tokens it keeps, all but the newest, at positions from 0."""
    compiles["slide"] += 1
    fresh = init_cache(model.config, 1, state.cache.num_slots)
    _, fresh = extend(model, params, kept[None], fresh, jnp.full(1, len(kept) - 1))

    def put(old: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new, row, axis=0)

    return dataclasses.replace(state, cache=jax.tree.map(put, state.cache, fresh))


def extend(
    model: CausalLM,
    params: Any,
    ids: Int[Array, "B T"],
    cache: KVCache,
    lengths: Int[Array, " B"] | None = None,
) -> tuple[Float[Array, "B T D"], KVCache]:
    apply: Any = model.apply
    return apply({"params": params}, ids, cache, lengths, method="extend")


def head(model: CausalLM, params: Any, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    apply: Any = model.apply
    return apply({"params": params}, hidden, method="head")
