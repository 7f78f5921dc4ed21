"""The step skips updates of losses that are no numbers or spikes, and remembers which."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.config import TrainConfig
from jaxlm.training.guard import WINDOW, Skips, make_guard
from jaxlm.training.state import from_items, to_items, train_step
from tests.training.test_step import assert_same, state_of


def scaled(model, params, batch, key):
    """A bowl whose loss is multiplied by what the batch says."""
    loss = jnp.sum(params["w"] ** 2) * batch["factor"][0]
    return {"loss": loss, "count": jnp.ones(())}


def batch(factor=1.0):
    return {"factor": jnp.asarray([factor], jnp.float32)}


def guarded(**options):
    state = state_of({"w": jnp.asarray([1.0, 2.0])}, scaled)
    return state.replace(guard=make_guard(TrainConfig(**options)), ema=state.params, ema_decay=0.5)


STEP = jax.jit(train_step)


@pytest.mark.parametrize("factor", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_no_number_is_skipped_and_the_step_counts(factor):
    before, _ = STEP(guarded(), batch())
    after, metrics = STEP(before, batch(factor))
    assert_same(
        (after.params, after.opt_state, after.ema), (before.params, before.opt_state, before.ema)
    )
    assert int(after.step) == 2
    assert not np.isfinite(metrics["loss"])
    assert (int(metrics["guard_skipped"]), int(metrics["guard_in_a_row"])) == (1, 1)
    again, metrics = STEP(after, batch())
    assert (int(metrics["guard_skipped"]), int(metrics["guard_in_a_row"])) == (1, 0)
    assert not np.array_equal(again.params["w"], after.params["w"])


def test_a_good_update_is_that_of_a_step_without_a_guard():
    plain, _ = STEP(guarded().replace(guard=None), batch())
    with_guard, _ = STEP(guarded(), batch())
    for ours, theirs in zip(*map(jax.tree.leaves, (with_guard.params, plain.params)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_after_so_many_in_a_row_nothing_is_applied_any_more():
    state = guarded(rollback_after=2)
    for factor in (np.nan, 1.0, np.nan, np.nan):
        state, _ = STEP(state, batch(factor))
    stuck, metrics = STEP(state, batch())
    assert_same(stuck.params, state.params)
    skips = Skips(*(np.asarray(metrics[f"guard_{name}"]) for name in Skips._fields))
    assert (int(skips.skipped), int(skips.in_a_row)) == (3, 2)
    assert skips.last(2) == [2, 3]
    assert skips.last(9) == [0, 2, 3]


def test_without_rollback_it_goes_on_for_ever_and_the_last_steps_are_remembered():
    state = guarded(rollback_after=None)
    for _ in range(12):
        state, metrics = STEP(state, batch(np.nan))
    skips = Skips(*(np.asarray(metrics[f"guard_{name}"]) for name in Skips._fields))
    assert (int(skips.skipped), int(skips.in_a_row)) == (12, 12)
    assert skips.last(100) == list(range(4, 12))


def test_a_spike_is_one_beside_the_last_losses_only():
    guard = make_guard(TrainConfig(skip_spikes=6.0))
    judge = jax.jit(lambda guard, loss: guard.judge(loss, jnp.ones(()), jnp.zeros((), jnp.int32)))
    losses = 2 + 0.1 * np.random.default_rng(0).standard_normal(WINDOW)
    apply, early = judge(guard, jnp.float32(100.0))
    assert bool(apply)  # there is nothing yet to measure it by
    assert int(early.accepted) == 1
    for loss in losses:
        apply, guard = judge(guard, jnp.float32(loss))
        assert bool(apply)
    bound = losses.mean() + 6 * losses.std()
    assert bool(judge(guard, jnp.float32(bound - 0.01))[0])
    apply, after = judge(guard, jnp.float32(bound + 0.01))
    assert not bool(apply)
    np.testing.assert_array_equal(after.losses, guard.losses)
    assert bool(judge(make_guard(TrainConfig()), jnp.float32(1e9))[0])


def test_a_checkpoint_holds_what_the_guard_remembers():
    state, _ = STEP(guarded(skip_spikes=6.0), batch(np.nan))
    again = from_items(guarded(skip_spikes=6.0), *to_items(state))
    assert_same(again.guard, state.guard)


def test_the_learning_rate_told_is_that_of_the_optimizer():
    schedule = lambda step: 0.1 * (1 + step)  # noqa: E731
    optimizer = optax.sgd(schedule)
    state = state_of({"w": jnp.asarray([1.0])}, scaled, optimizer, schedule=schedule)
    state, _ = STEP(state.replace(guard=make_guard(TrainConfig())), batch(np.nan))
    after, metrics = STEP(state, batch())
    moved = float(state.params["w"][0] - after.params["w"][0]) / 2.0
    assert float(metrics["learning_rate"]) == pytest.approx(moved, rel=1e-5)
