"""The decoding loop: one compiled program that generates up to CHUNK tokens of every row."""

import dataclasses
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxlm.generation.prefill import extend, head
from jaxlm.generation.rules import Context, Rule
from jaxlm.generation.sampler import OptionArrays, sample_tokens
from jaxlm.generation.speculation import Proposal, Speculation
from jaxlm.models import AutoregressiveLM
from jaxlm.nn.block import KVCache

CHUNK = 64  # tokens a call
TOP = 10  # runners-up reported
REPORTED = ("log_probs", "top_tokens", "top_log_probs")  # of `Emitted`, where they are asked for


@flax.struct.dataclass
class Emitted:
    """The tokens that a call has generated: of each row's buffers the first `counts` columns."""

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


@flax.struct.dataclass
class DecodingInputs:
    """What stays the same from the first step of a call to its last."""

    model: AutoregressiveLM = flax.struct.field(pytree_node=False)
    params: Any
    options: OptionArrays
    keys: Key[Array, " B"]
    budget: Int[Array, " B"]  # tokens of each row, CHUNK at most
    report: Bool[Array, ""]  # whether log-probabilities are asked for
    speculation: Speculation | None
    rule: Rule | None = flax.struct.field(pytree_node=False)


@flax.struct.dataclass
class DecodingState:
    """What each step of the loop changes."""

    cache: KVCache  # all tokens of the context but each row's newest
    context: Context
    emitted: Emitted
    active: Bool[Array, " B"]  # rows that go on


@flax.struct.dataclass
class Verification:
    """How far the logits of a pass have been turned into tokens, and proposals checked by them."""

    position: Int[Array, ""]  # among the pass's tokens
    context: Context
    emitted: Emitted
    active: Bool[Array, " B"]
    right: Bool[Array, " B"]  # rows whose tokens so far are those proposed


@partial(jax.jit, static_argnames=("model", "rule"), donate_argnames=("cache", "memory"))
def decode_chunk(
    model: AutoregressiveLM,
    params: Any,
    cache: KVCache,
    context: Context,
    options: OptionArrays,
    budget: Int[Array, " B"],
    report: Bool[Array, ""],
    speculation: Speculation | None = None,
    memory: Any = None,
    rule: Rule | None = None,
) -> tuple[KVCache, Emitted, Any]:
    """Generate `budget` tokens (CHUNK or fewer) of each row, or up to its first stop token.

    `cache` holds all tokens of the context but each row's newest; `memory` is the speculation's.
    """
    inputs = DecodingInputs(
        model, params, options, options.row_keys(), budget, report, speculation, rule
    )
    emitted = Emitted.empty(len(budget), model.config.vocab_size or 0)
    state = DecodingState(cache, context, emitted, budget > 0)
    state, memory = jax.lax.while_loop(
        lambda carry: jnp.any(carry[0].active),
        lambda carry: decoding_step(inputs, *carry),
        (state, memory),
    )
    return state.cache, state.emitted, memory


def decoding_step(
    inputs: DecodingInputs, state: DecodingState, memory: Any
) -> tuple[DecodingState, Any]:
    """One pass through the model: one token of each active row, or more where it was proposed."""
    none = Proposal.none(len(state.active))
    if inputs.speculation is None:
        return model_pass(inputs, none, state), memory
    proposal, memory = inputs.speculation.propose(
        memory, state.context, inputs.options, inputs.keys, state.active
    )
    before = state.emitted.counts
    state = jax.lax.cond(
        jnp.any(proposal.counts > 0),
        partial(model_pass, inputs, proposal),
        partial(model_pass, inputs, none),
        state,
    )
    gained = state.emitted.counts - before
    return state, inputs.speculation.learn(memory, state.cache.lengths, proposal, gained)


def model_pass(inputs: DecodingInputs, proposal: Proposal, state: DecodingState) -> DecodingState:
    """The state after a pass over each row's newest token and those proposed behind it."""
    context, before = state.context, state.emitted.counts
    newest = jnp.take_along_axis(context.tokens, context.lengths[:, None] - 1, axis=1)
    ids = jnp.concatenate([newest, proposal.tokens], axis=1)
    hidden, cache = extend(inputs.model, inputs.params, ids, state.cache, jnp.zeros_like(before))
    logits = head(inputs.model, inputs.params, hidden)
    found = Verification(jnp.int32(0), context, state.emitted, state.active, state.active)
    verify = partial(choose_token, inputs, proposal, logits)
    if ids.shape[1] == 1:
        found = verify(found)
    else:
        found = jax.lax.while_loop(lambda found: jnp.any(found.right), verify, found)
    emitted = dataclasses.replace(found.emitted, num_steps=found.emitted.num_steps + 1)
    cache = dataclasses.replace(cache, lengths=cache.lengths + emitted.counts - before)
    return DecodingState(cache, found.context, emitted, found.active)


def choose_token(
    inputs: DecodingInputs, proposal: Proposal, logits: Float[Array, "B T V"], found: Verification
) -> Verification:
    """Choose the next token of each row whose tokens so far are right, and compare it."""
    j = found.position
    scores = jax.lax.dynamic_index_in_dim(logits, j, axis=1, keepdims=False)
    tokens = sample_tokens(scores, found.context, inputs.options, inputs.keys, inputs.rule)
    emitted = found.emitted.append(tokens, scores, found.right, inputs.report)
    stopped = jnp.any(tokens[:, None] == inputs.options.stop_tokens, axis=1)
    active = found.active & ~(found.right & (stopped | (emitted.counts >= inputs.budget)))
    # One more column, which no row has proposed, keeps the index inside.
    proposed = jnp.pad(proposal.tokens, ((0, 0), (0, 1)))
    proposed = jax.lax.dynamic_index_in_dim(proposed, j, axis=1, keepdims=False)
    agrees = active & (j < proposal.counts) & (tokens == proposed)
    return Verification(
        position=j + 1,
        context=found.context.append(tokens, found.right),
        emitted=emitted,
        active=active,
        right=found.right & agrees,
    )
