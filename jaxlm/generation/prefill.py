"""Prompts into KV caches: in chunks of two sizes, what rows share only once.

All but the last token of a prompt is cached, so that every logit is made, and every token chosen,
in the one decoding loop.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxlm.models import AutoregressiveLM
from jaxlm.nn.block import KVCache, SourceCache, init_cache
from jaxlm.nn.int8 import Int8Matrix, matmul_transposed
from jaxlm.ops.padding import bucket, pad_rows

# Prompts are cached so many tokens at a time: by the larger number as long as most of it is used.
NARROW, WIDE = 32, 256
MOSTLY = 192
SHARED = 32  # an opening of so many tokens is worth computing once for all rows


def extend(
    model: AutoregressiveLM,
    params: Any,
    ids: Int[Array, "B T"],
    cache: KVCache,
    lengths: Int[Array, " B"] | None = None,
) -> tuple[Float[Array, "B T D"], KVCache]:
    """Hidden states of tokens appended to a cache; see `Decoder.extend`."""
    apply: Any = model.apply
    return apply({"params": params}, ids, cache, lengths, method="extend")


def head(
    model: AutoregressiveLM, params: Any, hidden: Float[Array, "B T D"]
) -> Float[Array, "B T V"]:
    """Logits of hidden states, in fp32."""
    apply: Any = model.apply
    return apply({"params": params}, hidden, method=logits_of)


def logits_of(model: AutoregressiveLM, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    """As the model's head, but fast for few positions where it is tied."""
    return model.head(hidden, table_first)


def table_first(
    x: Float[Array, "B T D"], table: Float[Array, "V D"] | Int8Matrix, dtype: Any
) -> Float[Array, "B T V"]:
    """As `matmul_transposed`, but fast for few positions."""
    if isinstance(table, Int8Matrix):
        return matmul_transposed(x, table, dtype)
    # With the table as the left operand XLA's CPU needs no transposed copy of it, and takes two
    # thirds of the time of the other order for 2 to 8 rows; a single row takes the same.
    logits = jnp.einsum("vd,btd->vbt", table.astype(x.dtype), x, preferred_element_type=dtype)
    return logits.transpose(1, 2, 0)


@partial(jax.jit, static_argnames="model", donate_argnames="cache")
def prefill(
    model: AutoregressiveLM,
    params: Any,
    cache: KVCache,
    ids: Int[Array, "B T"],
    lengths: Int[Array, " B"],
) -> KVCache:
    """Append the first `lengths` of T tokens to each row of the cache."""
    return extend(model, params, ids, cache, lengths)[1]


@partial(jax.jit, donate_argnames="cache")
def place_row(cache: KVCache, row: KVCache, i: Int[Array, ""]) -> KVCache:
    """The cache with another of a single row put in the place of its row i."""

    def put(old: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new, i, axis=0)

    return jax.tree.map(put, cache, row)


@jax.jit
def gather_rows(cache: KVCache, rows: Int[Array, " B"]) -> KVCache:
    """A cache of these rows of another, each as often as it is named; sources stay as they are."""
    return cache.take(rows)


@partial(jax.jit, static_argnames="model")
def read_sources(
    model: AutoregressiveLM, params: Any, ids: Int[Array, "R C"], mask: Bool[Array, "R C"]
) -> SourceCache:
    """What cross-attention reads of each source."""
    apply: Any = model.apply
    return apply({"params": params}, ids, mask, method="read_source")


@dataclass(frozen=True)
class Prefix:
    """The cache of a single row, and the tokens it holds: what a later prompt may begin with."""

    tokens: list[int]
    cache: KVCache


def fill_cache(
    model: AutoregressiveLM,
    params: Any,
    rows: Sequence[Sequence[int]],
    num_slots: int,
    prefix: Prefix | None = None,
    sources: Sequence[Sequence[int]] | None = None,
) -> KVCache:
    """A cache of the rows, filled up to a batch of a bucket's size, each with its source if any.

    Without sources, what all rows begin with is computed once, and so is a row that comes several
    times. The cache of a `prefix` is donated and cannot be used again.
    """
    if sources is not None:
        batch_size, longest = bucket(len(rows), 1), max(map(len, sources))
        ids = pad_rows(sources, (batch_size, bucket(longest, NARROW, model.config.max_seq_len)))
        lengths = pad_rows([[len(source) for source in sources]], (1, batch_size))[0]
        read = read_sources(model, params, ids, np.arange(ids.shape[1]) < lengths[:, None])
        cache = dataclasses.replace(new_cache(model, batch_size, num_slots), source=read)
        return append_tokens(model, params, cache, rows)
    unique = list(dict.fromkeys(map(tuple, rows)))
    num_unique = bucket(len(unique), 1)
    shared = common_prefix(*unique)  # of a single row the whole
    start, cache = 0, None
    if prefix is not None:
        start = len(common_prefix(prefix.tokens, shared))
        cache = resized(model, prefix.cache, start, num_slots)
    elif len(shared) >= SHARED or len(unique) == 1:
        cache = new_cache(model, 1, num_slots)
    if cache is not None:
        cache, start = append_tokens(model, params, cache, [shared[start:]]), len(shared)
    if cache is None:
        cache = new_cache(model, num_unique, num_slots)
    elif num_unique > 1:
        cache = gather_rows(cache, np.zeros(num_unique, np.int32))
    cache = append_tokens(model, params, cache, [row[start:] for row in unique])
    if len(unique) == len(rows):
        return cache
    index = [unique.index(tuple(row)) for row in rows]
    return gather_rows(cache, pad_rows([index], (1, bucket(len(rows), 1)))[0])


def refill(
    model: AutoregressiveLM, params: Any, cache: KVCache, i: int, tokens: Sequence[int]
) -> KVCache:
    """The cache with other tokens in row i, from position 0."""
    batch_size = len(cache.lengths)
    if batch_size == 1:
        return append_tokens(model, params, resized(model, cache, 0, cache.num_slots), [tokens])
    row = new_cache(model, 1, cache.num_slots)
    if cache.source is not None:
        row = dataclasses.replace(row, source=source_of(cache.source, np.array([i], np.int32)))
    return place_row(cache, append_tokens(model, params, row, [tokens]), np.int32(i))


@jax.jit
def source_of(source: SourceCache, rows: Int[Array, " R"]) -> SourceCache:
    """Some of the sources."""
    return jax.tree.map(lambda x: x[rows], source)


def append_tokens(
    model: AutoregressiveLM, params: Any, cache: KVCache, rows: Sequence[Sequence[int]]
) -> KVCache:
    """The cache with more tokens behind those of each row."""
    batch_size, longest, done = len(cache.lengths), max(map(len, rows)), 0
    while done < longest:
        width = WIDE if longest - done >= MOSTLY else NARROW
        parts = [row[done : done + width] for row in rows]
        lengths = pad_rows([[len(part) for part in parts]], (1, batch_size))[0]
        cache = prefill(model, params, cache, pad_rows(parts, (batch_size, width)), lengths)
        done += width
    return cache


def new_cache(model: AutoregressiveLM, batch_size: int, num_slots: int) -> KVCache:
    shapes = jax.eval_shape(lambda: init_cache(model.config, batch_size, num_slots))
    # From NumPy: for each size JAX would compile a program to do it.
    return jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype)), shapes)


def resized(model: AutoregressiveLM, cache: KVCache, length: int, num_slots: int) -> KVCache:
    """A single row's cache, only its first `length` tokens counting, with `num_slots` or more."""
    if cache.num_slots < num_slots:
        cache = place_row(new_cache(model, 1, num_slots), cache, np.int32(0))
    return dataclasses.replace(cache, lengths=jax.device_put(np.array([length], np.int32)))


def common_prefix(*rows: Sequence[int]) -> list[int]:
    """The tokens that all rows begin with."""
    columns = zip(*rows, strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
