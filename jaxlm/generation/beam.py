"""Beam search: the sequences of highest score, instead of one token after another."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config.schema import require
from jaxlm.generation.batch import SMALLEST_CACHE
from jaxlm.generation.batching import bucket, padded
from jaxlm.generation.caching import fill_cache
from jaxlm.generation.forward import extend, head
from jaxlm.generation.preparing import prepared
from jaxlm.generation.programs import compiles, gather
from jaxlm.generation.settings import GenerationError, check_prompts
from jaxlm.models import CausalLM
from jaxlm.nn.block import KVCache

NEVER = -1e9  # the score of what is not there
SMALLEST_OUTPUT = 64


@dataclass(frozen=True)
class Beams:
    """The best sequences of each row, best first; their last token is a stop token or the last.

    Where there are fewer than asked for, the rest have no tokens and a score of minus infinity.
    """

    tokens: Int[np.ndarray, "B n M"]  # pad behind
    counts: Int[np.ndarray, "B n"]
    scores: Float[np.ndarray, "B n"]  # summed log-probability over counts ** length_penalty


def beam_search(
    model: CausalLM,
    params: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 64,
    num_beams: int = 4,
    num_best: int = 1,
    length_penalty: float = 1.0,
    stop_tokens: Sequence[int] = (),
    pad_id: int = 0,
) -> Beams:
    """The `num_best` of the sequences that `num_beams` beams find for each prompt.

    A row ends when no beam can score better, at its present length, than the worst of `num_beams`
    finished sequences (as transformers has it). Raises GenerationError or ConfigError for bad
    arguments, and where prompt and new tokens do not fit the model's context.
    """
    require(max_new_tokens >= 1, "max_new_tokens", "at least 1", max_new_tokens)
    require(num_beams >= 1, "num_beams", "at least 1", num_beams)
    require(math.isfinite(length_penalty), "length_penalty", "finite", length_penalty)
    require(1 <= num_best <= num_beams, "num_best", "from 1 to num_beams", num_best)
    if not prompts:
        empty = np.zeros((0, num_best), np.int32)
        return Beams(np.zeros((0, num_best, max_new_tokens), np.int32), empty, empty * 1.0)
    check_prompts(prompts, model.config.vocab_size)
    limit, longest = model.config.max_seq_len, max(map(len, prompts))
    if longest + max_new_tokens - 1 > limit:
        raise GenerationError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit the model's "
            f"context of {limit}; beam search does not slide"
        )
    model, params = prepared(model, params)
    num_slots = min(bucket(longest + max_new_tokens, SMALLEST_CACHE), limit)
    cache = fill_cache(model, params, [prompt[:-1] for prompt in prompts], num_slots)
    batch_size = len(cache.lengths)
    cache = gather(cache, np.repeat(np.arange(batch_size, dtype=np.int32), num_beams))
    real = np.arange(batch_size) < len(prompts)
    found = search(
        model,
        params,
        cache,
        padded([[prompt[-1] for prompt in prompts]], (1, batch_size), 0)[0],
        real,
        padded([stop_tokens], (1, len(stop_tokens)), 0)[0],
        np.int32(max_new_tokens),
        np.float32(length_penalty),
        num_beams,
        bucket(max_new_tokens, SMALLEST_OUTPUT),
    )
    tokens, counts, scores = (np.array(x)[: len(prompts), :num_best] for x in found)
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


@partial(jax.jit, static_argnames=("model", "num_beams", "num_columns"))
def search(
    model: CausalLM,
    params: Any,
    cache: KVCache,
    newest: Int[Array, " B"],
    real: Bool[Array, " B"],
    stops: Int[Array, " n"],
    most: Int[Array, ""],
    length_penalty: Float[Array, ""],
    num_beams: int,
    num_columns: int,
) -> tuple[Int[Array, "B W M"], Int[Array, "B W"], Float[Array, "B W"]]:
    """The beams of each row at the end: tokens, how many, and scores; `real` rows count."""
    compiles["search"] += 1
    B, W = len(newest), num_beams
    rows = jnp.arange(B)[:, None]

    def unfinished(carry: tuple) -> Bool[Array, ""]:
        return carry[-1]

    def step(carry: tuple) -> tuple:
        cache, newest, running, finished, is_open, t, _ = carry
        hidden, cache = extend(model, params, newest.reshape(B * W, 1), cache)
        log_probs = jax.nn.log_softmax(head(model, params, hidden)[:, 0])
        V = log_probs.shape[1]
        totals = (log_probs.reshape(B, W, V) + running.scores[:, :, None]).reshape(B, W * V)
        # So many that W go on even if all the others end.
        keep = min(W * max(2, 1 + len(stops)), W * V)
        scores, best = jax.lax.top_k(totals, keep)
        beams, tokens = best // V, best % V
        candidates = running.take(beams)
        candidates = Sequences(
            candidates.tokens.at[:, :, t].set(tokens), candidates.counts + 1, scores
        )
        ends = jnp.any(tokens[:, :, None] == stops, axis=2) | (t + 1 == most)

        _, order = jax.lax.top_k(scores + NEVER * ends, W)
        running = candidates.take(order)
        running = dataclasses.replace(running, scores=running.scores + NEVER * ends[rows, order])
        reordered = (rows * W + beams[rows, order]).reshape(-1)
        cache = jax.tree.map(lambda x: x[reordered], cache)

        # Only the W best may finish; what goes on behind them is there to fill the beams.
        exist = scores > NEVER / 2
        counted = ends & (jnp.arange(keep) < W) & is_open[:, None] & exist
        normalised = scores / (t + 1.0) ** length_penalty
        both = jax.tree.map(
            lambda old, new: jnp.concatenate([old, new], axis=1),
            finished,
            dataclasses.replace(candidates, scores=jnp.where(counted, normalised, 2 * NEVER)),
        )
        finished = both.take(jax.lax.top_k(both.scores, W)[1])

        t += 1
        possible = running.scores[:, 0] / t.astype(jnp.float32) ** length_penalty
        full = jnp.all(finished.scores > NEVER, axis=1)
        worst = jnp.where(full, finished.scores[:, -1], NEVER)
        is_open &= possible > worst
        go_on = jnp.any(is_open) & ~jnp.all(ends | ~real[:, None])
        return cache, running.tokens[:, :, t - 1], running, finished, is_open, t, go_on

    shape = (B, W, num_columns)
    zeros = Sequences(jnp.zeros(shape, jnp.int32), jnp.zeros((B, W), jnp.int32), jnp.zeros((B, W)))
    # At first all beams are the same: only one may be continued.
    running = dataclasses.replace(zeros, scores=jnp.where(jnp.arange(W) > 0, NEVER, zeros.scores))
    finished = dataclasses.replace(zeros, scores=jnp.full((B, W), NEVER))
    newest = jnp.broadcast_to(newest[:, None], (B, W))
    carry = (cache, newest, running, finished, real, jnp.int32(0), jnp.array(True))
    finished = jax.lax.while_loop(unfinished, step, carry)[3]
    return finished.tokens, finished.counts, finished.scores
