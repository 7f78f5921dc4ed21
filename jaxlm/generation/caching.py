"""The cache of one model for the rows of a batch: filled in chunks, shared parts only once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxlm.generation.batching import bucket, common, padded
from jaxlm.generation.programs import gather, place, prefill
from jaxlm.models import CausalLM
from jaxlm.nn.block import KVCache, init_cache

# Prompts are cached so many tokens at a time: by the larger number as long as most of it is used.
NARROW, WIDE = 32, 256
MOSTLY = 192
SHARED = 32  # an opening of so many tokens is worth computing once for all rows


@dataclass(frozen=True)
class Prefix:
    """The cache of a single row, and the tokens it holds: what a later prompt may begin with."""

    tokens: list[int]
    cache: KVCache


def fill_cache(
    model: CausalLM,
    params: Any,
    rows: Sequence[Sequence[int]],
    num_slots: int,
    prefix: Prefix | None = None,
) -> KVCache:
    """A cache of the rows, filled up to a batch of a bucket's size.

    What all rows begin with is computed once, and so is a row that comes several times. `prefix` is
    used up where it serves.
    """
    unique = list(dict.fromkeys(map(tuple, rows)))
    num_unique = bucket(len(unique), 1)
    shared = common(*unique)  # of a single row the whole
    start, cache = 0, None
    if prefix is not None:
        start = len(common(prefix.tokens, shared))
        cache = resized(model, prefix.cache, start, num_slots)
    elif len(shared) >= SHARED or len(unique) == 1:
        cache = new_cache(model, 1, num_slots)
    if cache is not None:
        cache, start = append(model, params, cache, [shared[start:]]), len(shared)
    if cache is None:
        cache = new_cache(model, num_unique, num_slots)
    elif num_unique > 1:
        cache = gather(cache, np.zeros(num_unique, np.int32))
    cache = append(model, params, cache, [row[start:] for row in unique])
    if len(unique) == len(rows):
        return cache
    index = [unique.index(tuple(row)) for row in rows]
    return gather(cache, padded([index], (1, bucket(len(rows), 1)), 0)[0])


def refill(model: CausalLM, params: Any, cache: KVCache, i: int, tokens: Sequence[int]) -> KVCache:
    """The cache with other tokens in row i, from position 0."""
    batch_size = len(cache.lengths)
    if batch_size == 1:
        return append(model, params, resized(model, cache, 0, cache.num_slots), [tokens])
    row = append(model, params, new_cache(model, 1, cache.num_slots), [tokens])
    return place(cache, row, np.int32(i))


def append(model: CausalLM, params: Any, cache: KVCache, rows: Sequence[Sequence[int]]) -> KVCache:
    """The cache with more tokens behind those of each row."""
    batch_size, longest, done = len(cache.lengths), max(map(len, rows)), 0
    while done < longest:
        width = WIDE if longest - done >= MOSTLY else NARROW
        parts = [row[done : done + width] for row in rows]
        lengths = padded([[len(part) for part in parts]], (1, batch_size), 0)[0]
        cache = prefill(model, params, cache, padded(parts, (batch_size, width), 0), lengths)
        done += width
    return cache


def new_cache(model: CausalLM, batch_size: int, num_slots: int) -> KVCache:
    shapes = jax.eval_shape(lambda: init_cache(model.config, batch_size, num_slots))
    # From NumPy: for each size JAX would compile a program to do it.
    return jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype)), shapes)


def resized(model: CausalLM, cache: KVCache, length: int, num_slots: int) -> KVCache:
    """A single row's cache, only its first `length` tokens counting, with `num_slots` or more."""
    if cache.num_slots < num_slots:
        cache = place(new_cache(model, 1, num_slots), cache, np.int32(0))
    return KVCache(cache.layers, jax.device_put(np.array([length], np.int32)))
