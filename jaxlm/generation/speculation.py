"""Speculation: tokens proposed cheaply, and checked by the model all at once.

A proposed token is kept where it is the one that the model chooses itself, with the key it would
have used anyway. So whatever proposes, greedy or sampled, the tokens are those of decoding without
speculation (Leviathan et al. 2023; sharing the draws: Daliri et al. 2025).
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from jaxlm.generation.choosing import Choice, choose
from jaxlm.generation.forward import extend, head
from jaxlm.generation.penalties import Context, runs_before
from jaxlm.models import CausalLM
from jaxlm.nn.block import KVCache


@flax.struct.dataclass
class Proposal:
    """For each row the tokens that may come next, of which the first `counts` are meant."""

    tokens: Int[Array, "B W"]
    counts: Int[Array, " B"]

    @classmethod
    def none(cls, batch_size: int) -> "Proposal":
        return cls(jnp.zeros((batch_size, 0), jnp.int32), jnp.zeros(batch_size, jnp.int32))


@dataclasses.dataclass(frozen=True)
class Lookup:
    """Proposes what followed when the row's last tokens occurred before (Saxena 2023).

    A row asks for `shortest` equal tokens at first, for twice as many after a proposal that failed,
    and for half as many after one that was right. Where none has been right for `patience` passes
    it looks only once in as many, so text without repetition costs little.
    """

    width: int = 12
    shortest: int = 1
    longest: int = 32
    patience: int = 8

    def start(self, batch_size: int) -> Int[np.ndarray, "B 2"]:
        """The memory: how many equal tokens each row asks for, and its passes without gain."""
        return np.tile(np.array([self.shortest, 0], np.int32), (batch_size, 1))

    def propose(
        self,
        params: Any,
        memory: Int[Array, "B 2"],
        context: Context,
        choice: Choice,
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
        """The memory after a pass that gained some tokens."""
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


@dataclasses.dataclass(frozen=True)
class Draft:
    """Proposes what a smaller model of the same vocabulary would choose, with the same draws."""

    model: CausalLM
    width: int = 4

    def propose(
        self,
        params: Any,
        memory: KVCache,
        context: Context,
        choice: Choice,
        keys: Key[Array, " B"],
        active: Bool[Array, " B"],
    ) -> tuple[Proposal, KVCache]:
        def step(carry: tuple, _: None) -> tuple[tuple, Array]:
            cache, context = carry
            newest = jnp.take_along_axis(context.tokens, context.lengths[:, None] - 1, axis=1)
            hidden, cache = extend(self.model, params, newest, cache)
            logits = head(self.model, params, hidden)[:, 0]
            tokens = choose(logits, context, choice, keys)
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
        """The draft's cache goes back to the length of the model's."""
        return KVCache(memory.layers, lengths)


Speculation = Lookup | Draft  # hashable, for it is part of the compiled program
