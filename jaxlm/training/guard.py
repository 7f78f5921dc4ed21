"""Which updates are skipped: those of losses or gradients that are no number, and of spikes.

All of it is computed inside the training step, so that nothing waits for it. What the loop does
about skipped updates stands in faults.py.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import TrainConfig

WINDOW = 128  # accepted losses that a spike is measured by; before there are so many, none is
REMEMBERED = 8  # at least, of the steps whose updates were skipped


class Skips(NamedTuple):
    """The guard of a state, on the host."""

    skipped: int
    in_a_row: int
    steps: Sequence[int]

    def last(self, count: int) -> list[int]:
        """The steps of the last so many skipped updates, as far as they are remembered."""
        size = len(self.steps)
        numbers = range(self.skipped - min(count, size, self.skipped), self.skipped)
        return [int(self.steps[number % size]) for number in numbers]


@flax.struct.dataclass
class Guard:
    """What a state remembers of skipped updates.

    With `patience` of them in a row it is stuck: no update is applied any more, until the loop
    goes back to a checkpoint. So what a run becomes does not depend on when the loop looks.
    """

    skipped: Int[Array, ""]  # in all
    in_a_row: Int[Array, ""]  # up to the last step
    steps: Int[Array, " R"]  # of the last ones skipped, as a ring: number n lies at n % R
    losses: Float[Array, " W"] | None  # the last ones accepted, as a ring; None: spikes are taken
    accepted: Int[Array, ""]  # how many losses were
    spike: float | None = flax.struct.field(pytree_node=False)  # standard deviations
    patience: int | None = flax.struct.field(pytree_node=False)  # None: never stuck

    def judge(
        self, loss: Float[Array, ""], grad_norm: Float[Array, ""], step: Int[Array, ""]
    ) -> tuple[Bool[Array, ""], "Guard"]:
        """Whether to apply the update of a step, and what is remembered then."""
        good = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        if self.losses is not None and self.spike is not None:
            limit = self.losses.mean() + self.spike * self.losses.std()
            good &= (self.accepted < WINDOW) | (loss <= limit)
        stuck = jnp.zeros((), bool) if self.patience is None else self.in_a_row >= self.patience
        bad, apply = ~good & ~stuck, good & ~stuck
        place = jnp.where(bad, self.skipped % len(self.steps), len(self.steps))
        losses = self.losses
        if losses is not None:
            put = jnp.where(apply, self.accepted % WINDOW, WINDOW)
            losses = losses.at[put].set(loss, mode="drop")
        return apply, self.replace(  # pyright: ignore[reportAttributeAccessIssue]
            skipped=self.skipped + bad,
            in_a_row=jnp.where(stuck, self.in_a_row, jnp.where(good, 0, self.in_a_row + 1)),
            steps=self.steps.at[place].set(step, mode="drop"),
            losses=losses,
            accepted=self.accepted + apply,
        )

    def items(self) -> dict[str, Array]:
        """The arrays by name, for a checkpoint."""
        names = ("skipped", "in_a_row", "steps", "losses", "accepted")
        arrays = {name: getattr(self, name) for name in names}
        return {name: array for name, array in arrays.items() if array is not None}


def fetch_skips(guard: Guard) -> Skips:
    """The guard on the host; waits for the device."""
    return Skips(*jax.device_get(tuple(getattr(guard, name) for name in Skips._fields)))


def make_guard(config: TrainConfig) -> Guard:
    """The guard of a run at its start."""
    skipped, in_a_row, accepted = (jnp.zeros((), jnp.int32) for _ in range(3))
    ring = max(REMEMBERED, config.rollback_after or 0)
    losses = None if config.skip_spikes is None else jnp.zeros(WINDOW, jnp.float32)
    steps = jnp.full(ring, -1, jnp.int32)
    arrays = (skipped, in_a_row, steps, losses, accepted)
    return Guard(*arrays, config.skip_spikes, config.rollback_after)


def chosen[T](apply: Bool[Array, ""], new: T, old: T) -> T:
    """The new tree if the update is applied, else the old one."""
    choose: Any = lambda x, y: jnp.where(apply, x, y)  # noqa: E731
    return jax.tree.map(choose, new, old)
