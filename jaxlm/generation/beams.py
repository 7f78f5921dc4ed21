"""Beam search: the sequences of highest score, instead of one token after another."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config.schema import require
from jaxlm.generation.batch import (
    SMALLEST_CACHE,
    check_model,
    check_prompt_ids,
    check_sources,
    openings,
)
from jaxlm.generation.options import GenerationError, is_number
from jaxlm.generation.prefill import extend, fill_cache, gather_rows, head
from jaxlm.models import AutoregressiveLM
from jaxlm.nn.block import KVCache
from jaxlm.ops.padding import bucket, pad_rows

NEVER = -1e9  # the score of what is not there
SMALLEST_OUTPUT = 64
MOST_BEAMS = 1000  # each has a cache of its own


@dataclass(frozen=True)
class Beams:
    """The best sequences of each row, best first; their last token is a stop token or the last.

    Where there are fewer than asked for, the rest have no tokens and a score of minus infinity.
    """

    tokens: Int[np.ndarray, "B n M"]  # pad behind
    counts: Int[np.ndarray, "B n"]
    scores: Float[np.ndarray, "B n"]  # summed log-probability over counts ** length_penalty


def beam_search(
    model: AutoregressiveLM,
    params: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 64,
    num_beams: int = 4,
    num_best: int = 1,
    length_penalty: float = 1.0,
    stop_tokens: Sequence[int] = (),
    pad_id: int = 0,
    banned_tokens: Sequence[int] = (),
    forced_first: int | None = None,
    forced_last: int | None = None,
    sources: Sequence[Sequence[int]] | None = None,
) -> Beams:
    """The `num_best` of the sequences that `num_beams` beams find for each prompt.

    For an encoder-decoder the prompts are sources, and the sequences targets; or the prompts are
    what targets begin with, beside the `sources`. A row ends when no beam can score better, at its
    present length, than the worst of `num_beams` finished sequences (as transformers has it). None
    holds any of `banned_tokens`. A forced token, the first or that
    at `max_new_tokens`, adds nothing to a score.

    Raises GenerationError or ConfigError for bad arguments, and where prompt and new tokens do not
    fit the model's context.
    """
    check_model(model, params)
    counts = {"max_new_tokens": max_new_tokens, "num_beams": num_beams, "num_best": num_best}
    for name, count in counts.items():
        require(is_number(count, Integral) and count >= 1, name, "at least 1", count)
    require(num_beams <= MOST_BEAMS, "num_beams", f"at most {MOST_BEAMS}", num_beams)
    finite = is_number(length_penalty, Real) and math.isfinite(length_penalty)
    require(finite, "length_penalty", "finite", length_penalty)
    require(num_best <= num_beams, "num_best", "from 1 to num_beams", num_best)
    if not prompts:
        empty = np.zeros((0, num_best), np.int32)
        return Beams(np.zeros((0, num_best, max_new_tokens), np.int32), empty, empty * 1.0)
    if sources is None:
        prompts, sources = openings(model, prompts)
    check_prompt_ids(prompts, model.config.vocab_size)
    check_sources(model, prompts, sources)
    limit, longest = model.config.max_seq_len, max(map(len, prompts))
    if longest + max_new_tokens - 1 > limit:
        raise GenerationError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit the model's "
            f"context of {limit}; beam search does not slide"
        )
    num_slots = bucket(longest + max_new_tokens, SMALLEST_CACHE, limit)
    cache = fill_cache(model, params, [p[:-1] for p in prompts], num_slots, sources=sources)
    batch_size = len(cache.lengths)
    cache = gather_rows(cache, np.repeat(np.arange(batch_size, dtype=np.int32), num_beams))
    real = np.arange(batch_size) < len(prompts)
    found = search(
        model,
        params,
        cache,
        pad_rows([[prompt[-1] for prompt in prompts]], (1, batch_size))[0],
        real,
        np.array(stop_tokens, np.int32),
        np.array(banned_tokens, np.int32),
        np.array([-1 if t is None else t for t in (forced_first, forced_last)], np.int32),
        np.int32(max_new_tokens),
        np.float32(length_penalty),
        num_beams,
        bucket(max_new_tokens, SMALLEST_OUTPUT),
    )
    arrays = (found.tokens, found.counts, found.scores)
    tokens, counts, scores = (np.array(x)[: len(prompts), :num_best] for x in arrays)
    tokens = tokens[:, :, :max_new_tokens]
    missing = scores <= NEVER
    counts[missing], scores[missing] = 0, -np.inf
    tokens[np.arange(tokens.shape[2]) >= counts[:, :, None]] = pad_id
    return Beams(tokens, counts, scores)


@flax.struct.dataclass
class Sequences:
    """W sequences a row, the best first."""

    tokens: Int[Array, "B W M"]
    counts: Int[Array, "B W"]
    scores: Float[Array, "B W"]

    def take(self, beams: Int[Array, "B X"]) -> "Sequences":
        return jax.tree.map(lambda x: jax.vmap(lambda row, i: row[i])(x, beams), self)


@flax.struct.dataclass
class SearchInputs:
    """What stays the same from the first step of a search to its last."""

    model: AutoregressiveLM = flax.struct.field(pytree_node=False)
    params: Any
    stops: Int[Array, " n"]
    banned: Int[Array, " m"]
    forced: Int[Array, "2"]  # the first token and the last one; -1: none
    max_new_tokens: Int[Array, ""]
    length_penalty: Float[Array, ""]
    real: Bool[Array, " B"]  # rows that are not there to fill the batch


@flax.struct.dataclass
class SearchState:
    """What each step of a search changes; each row has W beams."""

    cache: KVCache  # of B * W rows: all tokens of the running sequences but the newest
    newest: Int[Array, "B W"]
    running: Sequences
    finished: Sequences
    is_open: Bool[Array, " B"]  # rows in which a running sequence may still be among the best
    t: Int[Array, ""]  # new tokens of the running sequences
    go_on: Bool[Array, ""]


@partial(jax.jit, static_argnames=("model", "num_beams", "num_columns"))
def search(
    model: AutoregressiveLM,
    params: Any,
    cache: KVCache,
    newest: Int[Array, " B"],
    real: Bool[Array, " B"],
    stops: Int[Array, " n"],
    banned: Int[Array, " m"],
    forced: Int[Array, "2"],
    max_new_tokens: Int[Array, ""],
    length_penalty: Float[Array, ""],
    num_beams: int,
    num_columns: int,
) -> Sequences:
    """The finished sequences of each row, W = `num_beams` of them with room for `num_columns`."""
    B, W = len(newest), num_beams
    shape = (B, W, num_columns)
    zeros = Sequences(jnp.zeros(shape, jnp.int32), jnp.zeros((B, W), jnp.int32), jnp.zeros((B, W)))
    # At first all beams are the same: only one may be continued.
    scores = jnp.where(jnp.arange(W) > 0, NEVER, zeros.scores)
    state = SearchState(
        cache=cache,
        newest=jnp.broadcast_to(newest[:, None], (B, W)),
        running=dataclasses.replace(zeros, scores=scores),
        finished=dataclasses.replace(zeros, scores=jnp.full((B, W), NEVER)),
        is_open=real,
        t=jnp.int32(0),
        go_on=jnp.array(True),
    )
    inputs = SearchInputs(
        model, params, stops, banned, forced, max_new_tokens, length_penalty, real
    )
    return jax.lax.while_loop(
        lambda state: state.go_on, partial(search_step, inputs), state
    ).finished


def search_step(inputs: SearchInputs, state: SearchState) -> SearchState:
    """The state with one more token in each beam."""
    cache, log_probs = next_log_probs(inputs, state)
    candidates, beams = best_candidates(inputs, state, log_probs)
    W, t = state.newest.shape[1], state.t
    tokens = jnp.take(candidates.tokens, t, axis=2)
    ends = jnp.any(tokens[:, :, None] == inputs.stops, axis=2) | (t + 1 == inputs.max_new_tokens)
    rows = jnp.arange(len(ends))[:, None]

    _, order = jax.lax.top_k(candidates.scores + NEVER * ends, W)
    running = candidates.take(order)
    running = dataclasses.replace(running, scores=running.scores + NEVER * ends[rows, order])
    reordered = (rows * W + beams[rows, order]).reshape(-1)
    cache = cache.take(reordered)  # without the sources, which the beams of a row share

    finished = with_ended(inputs, state, candidates, ends)
    t += 1
    possible = running.scores[:, 0] / t.astype(jnp.float32) ** inputs.length_penalty
    full = jnp.all(finished.scores > NEVER, axis=1)
    worst = jnp.where(full, finished.scores[:, -1], NEVER)
    is_open = state.is_open & (possible > worst)
    return SearchState(
        cache=cache,
        newest=running.tokens[:, :, t - 1],
        running=running,
        finished=finished,
        is_open=is_open,
        t=t,
        go_on=jnp.any(is_open) & ~jnp.all(ends | ~inputs.real[:, None]),
    )


def next_log_probs(
    inputs: SearchInputs, state: SearchState
) -> tuple[KVCache, Float[Array, "B W V"]]:
    """Log-probabilities of what follows each beam, and the cache with its newest token."""
    B, W = state.newest.shape
    hidden, cache = extend(inputs.model, inputs.params, state.newest.reshape(-1, 1), state.cache)
    log_probs = jax.nn.log_softmax(head(inputs.model, inputs.params, hidden)[:, 0])
    log_probs = log_probs.at[:, inputs.banned].set(NEVER)
    first, last = inputs.forced
    forced = jnp.where(state.t == 0, first, -1)
    forced = jnp.where((state.t + 1 == inputs.max_new_tokens) & (last >= 0), last, forced)
    only = jnp.where(jnp.arange(log_probs.shape[1]) == forced, 0, NEVER)
    log_probs = jnp.where(forced >= 0, only, log_probs)
    return cache, log_probs.reshape(B, W, -1)


def best_candidates(
    inputs: SearchInputs, state: SearchState, log_probs: Float[Array, "B W V"]
) -> tuple[Sequences, Int[Array, "B X"]]:
    """The running sequences with one more token, the best of all, and the beam each comes from.

    So many that W go on even if all the others end.
    """
    B, W, V = log_probs.shape
    totals = (log_probs + state.running.scores[:, :, None]).reshape(B, W * V)
    keep = min(W * max(2, 1 + len(inputs.stops)), W * V)
    scores, best = jax.lax.top_k(totals, keep)
    beams, tokens = best // V, best % V
    longer = state.running.take(beams)
    tokens = longer.tokens.at[:, :, state.t].set(tokens)
    return Sequences(tokens, longer.counts + 1, scores), beams


def with_ended(
    inputs: SearchInputs, state: SearchState, candidates: Sequences, ends: Bool[Array, "B X"]
) -> Sequences:
    """The best W of the finished sequences and of the candidates that end."""
    W = state.newest.shape[1]
    # Only the W best may finish; what goes on behind them is there to fill the beams.
    exist = candidates.scores > NEVER / 2
    counted = ends & (jnp.arange(ends.shape[1]) < W) & state.is_open[:, None] & exist
    normalised = candidates.scores / (state.t + 1.0) ** inputs.length_penalty
    both = jax.tree.map(
        lambda old, new: jnp.concatenate([old, new], axis=1),
        state.finished,
        dataclasses.replace(candidates, scores=jnp.where(counted, normalised, 2 * NEVER)),
    )
    return both.take(jax.lax.top_k(both.scores, W)[1])
