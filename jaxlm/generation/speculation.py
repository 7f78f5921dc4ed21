"""Speculation: tokens proposed cheaply, and checked by the model all at once.

A proposed token is kept where it is the one that the model chooses itself, with the key it would
have used anyway. So whatever proposes, greedy or sampled, the tokens are those of decoding without
speculation (Leviathan et al. 2023; sharing the draws: Daliri et al. 2025).
"""

import dataclasses
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Protocol, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from jaxlm.config.schema import require
from jaxlm.generation.options import GenerationError, is_number
from jaxlm.generation.prefill import extend, fill_cache, head, refill
from jaxlm.generation.rules import Context, runs_before
from jaxlm.generation.sampler import OptionArrays, sample_tokens
from jaxlm.models import AutoregressiveLM
from jaxlm.nn.block import KVCache


@flax.struct.dataclass
class Proposal:
    """For each row the tokens that may come next, of which the first `counts` are meant."""

    tokens: Int[Array, "B W"]
    counts: Int[Array, " B"]

    @classmethod
    def none(cls, batch_size: int) -> "Proposal":
        return cls(jnp.zeros((batch_size, 0), jnp.int32), jnp.zeros(batch_size, jnp.int32))


@runtime_checkable
class Speculation(Protocol):
    """What proposes tokens: a pytree that decoding takes as it is, with a `memory` of its own kind.

    The memory is a pytree, too; decoding hands it from one call to the next, and donates it.
    """

    @property
    def width(self) -> int:
        """How many tokens a proposal has."""
        ...

    def check(self, model: AutoregressiveLM) -> None:
        """Raise GenerationError unless it can propose tokens to the model."""

    def start(
        self, rows: Sequence[Sequence[int]], batch_size: int, num_slots: int, **sources: Any
    ) -> Any:
        """The memory for rows of which these tokens are cached, in caches of `num_slots`.

        Where the model is an encoder-decoder, the rows' `sources` come as well.
        """

    def slide(self, memory: Any, i: int, tokens: Sequence[int]) -> Any:
        """The memory when only these tokens of row i are still cached, from position 0."""

    def propose(
        self,
        memory: Any,
        context: Context,
        options: OptionArrays,
        keys: Key[Array, " B"],
        active: Bool[Array, " B"],
    ) -> tuple[Proposal, Any]:
        """What may come next in the active rows, inside jit."""
        ...

    def learn(
        self, memory: Any, lengths: Int[Array, " B"], proposal: Proposal, gained: Int[Array, " B"]
    ) -> Any:
        """The memory after a pass that gained some tokens and left so many in the model's cache."""


def static_field(default: int) -> Any:
    """A field that is part of the compiled program."""
    return flax.struct.field(pytree_node=False, default=default)


@flax.struct.dataclass
class Lookup:
    """Proposes what followed when the row's last tokens occurred before (Saxena 2023).

    A row asks for `shortest` equal tokens at first, for twice as many after a proposal that failed,
    and for half as many after one that was right. Where none has been right for `patience` passes
    it looks only once in as many, so text without repetition costs little.

    The memory (B, 2): how many equal tokens each row asks for, and its passes without gain.
    """

    width: int = static_field(12)
    shortest: int = static_field(1)
    longest: int = static_field(32)
    patience: int = static_field(8)

    def check(self, model: AutoregressiveLM) -> None:
        for name in ("width", "shortest", "longest", "patience"):
            value = getattr(self, name)
            require(is_number(value, Integral) and value >= 1, name, "at least 1", value)

    def start(
        self,
        rows: Sequence[Sequence[int]],
        batch_size: int,
        num_slots: int,
        sources: Sequence[Sequence[int]] | None = None,
    ) -> Int[Array, "B 2"]:
        return jax.device_put(np.tile(np.array([self.shortest, 0], np.int32), (batch_size, 1)))

    def slide(self, memory: Int[Array, "B 2"], i: int, tokens: Sequence[int]) -> Int[Array, "B 2"]:
        return memory

    def propose(
        self,
        memory: Int[Array, "B 2"],
        context: Context,
        options: OptionArrays,
        keys: Key[Array, " B"],
        active: Bool[Array, " B"],
    ) -> tuple[Proposal, Int[Array, "B 2"]]:
        asked, idle = memory.T
        looks = active & ((idle < self.patience) | (idle % self.patience == 0))

        def look() -> tuple[Array, Array]:
            return look_up(context, self.width, self.longest)

        def rest() -> tuple[Array, Array]:
            return jnp.zeros((len(asked), self.width), jnp.int32), jnp.zeros_like(asked)

        tokens, runs = jax.lax.cond(jnp.any(looks), look, rest)
        return Proposal(tokens, jnp.where(looks & (runs >= asked), self.width, 0)), memory

    def learn(
        self,
        memory: Int[Array, "B 2"],
        lengths: Int[Array, " B"],
        proposal: Proposal,
        gained: Int[Array, " B"],
    ) -> Int[Array, "B 2"]:
        asked, idle = memory.T
        tried = (proposal.counts > 0) & (gained > 0)
        right = tried & (gained > self.width // 2)
        harder = jnp.clip(jnp.where(right, asked // 2, asked * 2), self.shortest, self.longest)
        return jnp.stack([jnp.where(tried, harder, asked), jnp.where(right, 0, idle + 1)], axis=1)


def look_up(
    context: Context, width: int, longest: int
) -> tuple[Int[Array, "B W"], Int[Array, " B"]]:
    """What followed when each row's last tokens occurred before, and how many tokens were equal."""
    size = context.tokens.shape[1]
    runs = runs_before(context.tokens, context.lengths, longest)
    # The longest run; of equals the latest.
    place = size - 1 - jnp.argmax(runs[:, ::-1], axis=1)
    # A text in its second period goes on with the first, also past its end.
    period = jnp.maximum(context.lengths - place, 1)
    offsets = jnp.arange(width) % period[:, None]
    tokens = jnp.take_along_axis(context.tokens, place[:, None] + offsets, axis=1)
    return tokens, jnp.max(runs, axis=1)


@flax.struct.dataclass
class DraftModel:
    """Proposes what a smaller model of the same vocabulary would choose, with the same draws.

    The memory is the draft model's KV cache.
    """

    model: AutoregressiveLM = flax.struct.field(pytree_node=False)
    params: Any
    width: int = static_field(4)

    def check(self, model: AutoregressiveLM) -> None:
        if not isinstance(self.model, AutoregressiveLM):
            raise GenerationError(f"a draft model is a CausalLM, got a {type(self.model).__name__}")
        kind, expected = self.model.config.architecture, model.config.architecture
        if kind != expected:
            raise GenerationError(
                f"the draft model is of architecture {kind}, the model of {expected}: a draft "
                "model must be of the same kind"
            )
        size, expected = self.model.config.source_vocab_size, model.config.source_vocab_size
        if size != expected:
            raise GenerationError(
                f"the draft model reads sources of {size} tokens, the model of {expected}"
            )
        size, expected = self.model.config.vocab_size, model.config.vocab_size
        if size != expected:
            raise GenerationError(
                f"the draft model has a vocabulary of {size} tokens, the model of {expected}"
            )
        size, expected = self.model.config.max_seq_len, model.config.max_seq_len
        if size < expected:
            raise GenerationError(
                f"the draft model has a context of {size} tokens, shorter than the model's "
                f"{expected}"
            )

    def start(
        self,
        rows: Sequence[Sequence[int]],
        batch_size: int,
        num_slots: int,
        sources: Sequence[Sequence[int]] | None = None,
    ) -> KVCache:
        return fill_cache(self.model, self.params, rows, num_slots, sources=sources)

    def slide(self, memory: KVCache, i: int, tokens: Sequence[int]) -> KVCache:
        return refill(self.model, self.params, memory, i, tokens)

    def propose(
        self,
        memory: KVCache,
        context: Context,
        options: OptionArrays,
        keys: Key[Array, " B"],
        active: Bool[Array, " B"],
    ) -> tuple[Proposal, KVCache]:
        def step(carry: tuple[KVCache, Context], _: None) -> tuple[tuple, Array]:
            cache, context = carry
            newest = jnp.take_along_axis(context.tokens, context.lengths[:, None] - 1, axis=1)
            hidden, cache = extend(self.model, self.params, newest, cache)
            logits = head(self.model, self.params, hidden)[:, 0]
            tokens = sample_tokens(logits, context, options, keys)
            return (cache, context.append(tokens, active)), tokens

        # Once more than there are tokens to propose: the last one has to be in the cache, too.
        (memory, _), tokens = jax.lax.scan(step, (memory, context), length=self.width + 1)
        return Proposal(tokens[:-1].T, jnp.where(active, self.width, 0)), memory

    def learn(
        self,
        memory: KVCache,
        lengths: Int[Array, " B"],
        proposal: Proposal,
        gained: Int[Array, " B"],
    ) -> KVCache:
        return dataclasses.replace(memory, lengths=lengths)  # back to the length of the model's
