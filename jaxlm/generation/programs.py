"""The compiled programs of generation: prefill, decode, and moving rows from cache to cache.

The prefill caches all but the last token of a prompt, so that every logit is made, and every token
chosen, in the one loop of `decode`. Between two programs only the caches live on the device: what
else a row is, the host knows.
"""

import dataclasses
from collections import Counter
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.generation.choosing import Choice, choose
from jaxlm.generation.forward import extend, head
from jaxlm.generation.penalties import Context
from jaxlm.generation.speculation import Proposal, Speculation
from jaxlm.models import CausalLM
from jaxlm.nn.block import KVCache

CHUNK = 64  # tokens a dispatch
TOP = 10  # runners-up reported

# How often each program has been traced, and so at most compiled, since import.
compiles: Counter[str] = Counter()


@flax.struct.dataclass
class Emitted:
    """What a dispatch has made: of each row's buffers the first `counts` columns."""

    counts: Int[Array, " B"]
    tokens: Int[Array, "B n"]
    log_probs: Float[Array, "B n"]  # of the tokens, by the model's own distribution
    top_tokens: Int[Array, "B n k"]  # its likeliest ones, in order
    top_log_probs: Float[Array, "B n k"]
    num_steps: Int[Array, ""]  # passes through the model

    @classmethod
    def empty(cls, batch_size: int, vocab_size: int) -> "Emitted":
        top = (batch_size, CHUNK, min(TOP, vocab_size))
        return cls(
            counts=jnp.zeros(batch_size, jnp.int32),
            tokens=jnp.zeros(top[:2], jnp.int32),
            log_probs=jnp.zeros(top[:2]),
            top_tokens=jnp.zeros(top, jnp.int32),
            top_log_probs=jnp.zeros(top),
            num_steps=jnp.int32(0),
        )

    def append(
        self,
        tokens: Int[Array, " B"],
        logits: Float[Array, "B V"],
        where: Bool[Array, " B"],
        report: Bool[Array, ""],
    ) -> "Emitted":
        """One more token in the rows given, its log-probabilities too where they are asked for."""
        rows = jnp.arange(len(tokens))
        place = rows, jnp.where(where, self.counts, CHUNK)

        def reported(emitted: Emitted) -> Emitted:
            log_probs = jax.nn.log_softmax(logits)
            top_log_probs, top_tokens = jax.lax.top_k(log_probs, emitted.top_tokens.shape[2])
            chosen = log_probs[rows, tokens]
            return dataclasses.replace(
                emitted,
                log_probs=emitted.log_probs.at[place].set(chosen, mode="drop"),
                top_tokens=emitted.top_tokens.at[place].set(top_tokens, mode="drop"),
                top_log_probs=emitted.top_log_probs.at[place].set(top_log_probs, mode="drop"),
            )

        emitted = jax.lax.cond(report, reported, lambda emitted: emitted, self)
        return dataclasses.replace(
            emitted,
            tokens=emitted.tokens.at[place].set(tokens, mode="drop"),
            counts=self.counts + where,
        )


@partial(jax.jit, static_argnames="model", donate_argnames="cache")
def prefill(
    model: CausalLM,
    params: Any,
    cache: KVCache,
    ids: Int[Array, "B T"],
    lengths: Int[Array, " B"],
) -> KVCache:
    """Append the first `lengths` of T tokens to each row of the cache."""
    compiles["prefill"] += 1
    return extend(model, params, ids, cache, lengths)[1]


@partial(jax.jit, donate_argnames="cache")
def place(cache: KVCache, row: KVCache, i: Int[Array, ""]) -> KVCache:
    """The cache with another of a single row put in the place of its row i."""
    compiles["place"] += 1

    def put(old: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new, i, axis=0)

    return jax.tree.map(put, cache, row)


@jax.jit
def gather(cache: KVCache, rows: Int[Array, " B"]) -> KVCache:
    """A cache of these rows of another, each as often as it is named."""
    compiles["gather"] += 1
    return jax.tree.map(lambda x: x[rows], cache)


@partial(jax.jit, static_argnames=("model", "speculation"), donate_argnames=("cache", "memory"))
def decode(
    model: CausalLM,
    params: Any,
    cache: KVCache,
    context: Context,
    choice: Choice,
    most: Int[Array, " B"],
    report: Bool[Array, ""],
    speculation: Speculation | None = None,
    draft_params: Any = None,
    memory: Any = None,
) -> tuple[KVCache, Emitted, Any]:
    """Generate `most` tokens (CHUNK or fewer) of each row, or up to its first stop token.

    `cache` holds all tokens of the context but each row's newest. `memory` is what the speculation
    keeps from dispatch to dispatch.
    """
    compiles["decode"] += 1
    keys = choice.row_keys()

    def unfinished(carry: tuple) -> Bool[Array, ""]:
        return jnp.any(carry[3])

    def plain(carry: tuple) -> tuple:
        cache, context, emitted, active, memory = carry
        proposal = Proposal.none(len(active))
        return (*step(cache, context, emitted, active, proposal), memory)

    def speculate(carry: tuple) -> tuple:
        cache, context, emitted, active, memory = carry
        assert speculation is not None
        before = emitted
        memory: Any
        proposal, memory = speculation.propose(draft_params, memory, context, choice, keys, active)
        none = Proposal.none(len(active))
        cache, context, emitted, active = jax.lax.cond(
            jnp.any(proposal.counts > 0),
            partial(step, proposal=proposal),
            partial(step, proposal=none),
            cache,
            context,
            emitted,
            active,
        )
        gained = emitted.counts - before.counts
        memory = speculation.learn(memory, cache.lengths, proposal, gained)
        return cache, context, emitted, active, memory

    def step(
        cache: KVCache, context: Context, emitted: Emitted, active: Array, proposal: Proposal
    ) -> tuple[KVCache, Context, Emitted, Array]:
        newest = jnp.take_along_axis(context.tokens, context.lengths[:, None] - 1, axis=1)
        ids = jnp.concatenate([newest, proposal.tokens], axis=1)
        hidden, cache = extend(model, params, ids, cache, jnp.zeros_like(most))
        logits = head(model, params, hidden)
        before = emitted.counts

        def settle(j: Array, carry: tuple) -> tuple:
            """Choose token j of each row that is right up to there."""
            context, emitted, active, right = carry
            scores = jax.lax.dynamic_index_in_dim(logits, j, axis=1, keepdims=False)
            tokens = choose(scores, context, choice, keys)
            context = context.append(tokens, right)
            emitted = emitted.append(tokens, scores, right, report)
            stopped = jnp.any(tokens[:, None] == choice.stops, axis=1)
            active &= ~(right & (stopped | (emitted.counts >= most)))
            # One more column, which no row has proposed, keeps the index inside.
            following = jnp.concatenate([ids[:, 1:], ids[:, :1]], axis=1)
            proposed = jax.lax.dynamic_index_in_dim(following, j, axis=1, keepdims=False)
            right &= active & (j < proposal.counts) & (tokens == proposed)
            return context, emitted, active, right

        carry = (context, emitted, active, active)
        if ids.shape[1] == 1:
            carry = settle(jnp.int32(0), carry)
        else:
            carry = jax.lax.while_loop(
                lambda c: jnp.any(c[1][3]),
                lambda c: (c[0] + 1, settle(c[0], c[1])),
                (jnp.int32(0), carry),
            )[1]
        context, emitted, active, _ = carry
        cache = KVCache(cache.layers, cache.lengths + emitted.counts - before)
        return cache, context, dataclasses.replace(emitted, num_steps=emitted.num_steps + 1), active

    emitted = Emitted.empty(len(most), model.config.vocab_size or 0)
    carry = (cache, context, emitted, most > 0, memory)
    body = plain if speculation is None else speculate
    cache, _, emitted, _, memory = jax.lax.while_loop(unfinished, body, carry)
    return cache, emitted, memory
