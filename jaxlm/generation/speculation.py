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
from jaxtyping import Array, Bool, Int, Key

from jaxlm.generation.choosing import Choice, choose
from jaxlm.generation.forward import extend, head
from jaxlm.generation.penalties import Context, runs_before
from jaxlm.models import CausalLM
from jaxlm.nn.cache import KVCache


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
    and for half as many after one that was right, so text without repetition is left alone.
    """

    width: int = 12
    shortest: int = 1
    longest: int = 32

    def propose(
        self,
        params: Any,
        memory: Int[Array, " B"],
        context: Context,
        choice: Choice,
        keys: Key[Array, " B"],
        active: Bool[Array, " B"],
    ) -> tuple[Proposal, Int[Array, " B"]]:
        tokens, runs = look_up(context, self.width, self.longest)
        found = active & (runs >= memory)
        return Proposal(tokens, jnp.where(found, self.width, 0)), memory

    def learn(
        self,
        memory: Int[Array, " B"],
        lengths: Int[Array, " B"],
        proposal: Proposal,
        gained: Int[Array, " B"],
    ) -> Int[Array, " B"]:
        """A memory of how many equal tokens each row asks for."""
        asked = jnp.where(gained > self.width // 2, memory // 2, memory * 2)
        asked = jnp.clip(asked, self.shortest, self.longest)
        return jnp.where((proposal.counts > 0) & (gained > 0), asked, memory)


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
