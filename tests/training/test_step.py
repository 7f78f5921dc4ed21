"""The training step: sums over micro-batches, averages of weights, its randomness, its learning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.config import OptimConfig
from jaxlm.tasks.causal_lm import causal_lm
from jaxlm.training.optimizers import make_optimizer
from jaxlm.training.state import (
    Recent,
    TrainState,
    accumulated_gradients,
    evaluation_params,
    init_state,
    remembered,
    train_step,
)
from tests.fixtures.tiny import random_ids, tiny_model

KEY = jax.random.key_data(jax.random.key(5))


def state_of(params, objective=None, optimizer=None, model=None, **fields):
    optimizer = optimizer or optax.sgd(0.1)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=jax.jit(optimizer.init)(params),
        key=KEY,
        ema=None,
        model=model,
        optimizer=optimizer,
        objective=objective or causal_lm,
    )
    return state.replace(**fields)


def language_state(optimizer=None, **overrides):
    model, variables = tiny_model("learned", num_layers=1, **overrides)
    return state_of(variables["params"], optimizer=optimizer, model=model)


def language_batch(rows=4, length=7):
    tokens = random_ids(rows, length + 1)
    kept = np.random.default_rng(0).random((rows, length)) < np.linspace(0.1, 1, rows)[:, None]
    weights = jnp.asarray(kept, jnp.float32)  # ragged: few targets in the first rows
    return {"ids": tokens[:, :-1], "targets": tokens[:, 1:], "weights": weights}


def distance(model, params, batch, key):
    """A bowl around the targets, shaken by the key, of the params' own shape."""
    noise = 0.0 if key is None else 0.01 * jax.random.normal(key, ())
    losses = (params["w"] - batch["targets"] + noise) ** 2
    return {"loss": losses.sum(), "count": jnp.float32(losses.shape[0]), "noise": noise}


def assert_same(x, y):
    assert jax.tree.structure(x) == jax.tree.structure(y)
    jax.tree.map(np.testing.assert_array_equal, x, y)


def test_accumulated_gradients_equal_those_of_one_batch():
    state, batch = language_state(), language_batch()
    gradients = jax.jit(accumulated_gradients)
    whole, sums = gradients(state, batch, KEY)
    parts, part_sums = gradients(state.replace(accumulate_steps=4), batch, KEY)
    assert sums["count"] == batch["weights"].sum() < batch["weights"].size
    np.testing.assert_allclose(part_sums["loss"], sums["loss"], rtol=1e-6)
    assert part_sums["count"] == sums["count"]
    for ours, theirs in zip(*map(jax.tree.leaves, (parts, whole)), strict=True):
        # That of a key's bias is zero but for rounding.
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max() + 1e-6)


def test_micro_batches_draw_different_randomness():
    noise = lambda model, params, batch, key: {  # noqa: E731
        "loss": params["w"].sum() * jax.random.normal(key, ()),
        "count": jnp.ones(()),
    }
    batch = {"targets": jnp.zeros(2)}
    state = state_of({"w": jnp.ones(1)}, noise, accumulate_steps=2)
    _, sums = accumulated_gradients(state, batch, KEY)
    draws = [jax.random.normal(key, ()) for key in jax.random.split(KEY, 2)]
    np.testing.assert_allclose(sums["loss"], sum(draws), rtol=1e-6)


def test_metrics_are_means_over_targets_before_the_update():
    state = state_of({"w": jnp.array([3.0])}, distance, optax.sgd(0.5))
    quiet = lambda *inputs: distance(*inputs[:3], None)  # noqa: E731
    state, metrics = train_step(state.replace(objective=quiet), {"targets": jnp.array([1.0, 5.0])})
    assert metrics["loss"] == pytest.approx((4 + 4) / 2)
    assert metrics["grad_norm"] == pytest.approx(0.0)
    state, metrics = train_step(state, {"targets": jnp.array([1.0, 2.0])})
    assert metrics["loss"] == pytest.approx((4 + 1) / 2)
    assert metrics["grad_norm"] == pytest.approx((4 + 2) / 2)
    np.testing.assert_allclose(state.params["w"], 3.0 - 0.5 * 3.0)
    assert state.step == 2


def test_a_batch_without_targets_changes_no_weight():
    silent = lambda *inputs: jax.tree.map(lambda x: 0.0 * x, distance(*inputs))  # noqa: E731
    state = state_of({"w": jnp.array([3.0])}, silent)
    after, metrics = train_step(state, {"targets": jnp.array([1.0])})
    assert_same(after.params, state.params)
    assert metrics["loss"] == 0


def test_the_average_follows_the_weights_and_is_what_evaluation_uses():
    state = state_of({"w": jnp.array([3.0])}, distance, ema_decay=0.75)
    state = state.replace(ema=state.params)
    average = state.params["w"]
    for _ in range(3):
        state, _ = train_step(state, {"targets": jnp.array([1.0])})
        average = 0.75 * average + 0.25 * state.params["w"]
    np.testing.assert_allclose(evaluation_params(state)["w"], average, rtol=1e-6)
    assert abs(average - state.params["w"]).max() > 0.1


def test_evaluation_uses_the_mean_of_the_last_weights_that_were_kept():
    params = {"w": jnp.zeros(3)}
    ring = {"w": jnp.zeros((2, 3))}
    state = state_of(params, recent=Recent(ring, jnp.zeros((), jnp.int32)))
    found = []
    for value in (1.0, 2.0, 4.0):
        state = state.replace(params={"w": jnp.full(3, value)})
        found.append(float(evaluation_params(state)["w"][0]))
        state = remembered(state)
        found.append(float(evaluation_params(state)["w"][0]))
    assert found == [1.0, 1.0, 1.0, 1.5, 1.5, 3.0]


def test_without_averaging_evaluation_uses_the_weights():
    state = state_of({"w": jnp.ones(2)}, distance)
    assert evaluation_params(state) is state.params


def test_schedule_free_evaluates_the_average_of_its_fast_weights():
    config = OptimConfig(
        name="schedule_free", schedule="constant", warmup_steps=0, learning_rate=0.1
    )
    params = {"layers_0": {"bias": jnp.array([3.0])}}
    bowl = lambda model, p, batch, key: distance(model, {"w": p["layers_0"]["bias"]}, batch, None)  # noqa: E731
    state = state_of(params, bowl, make_optimizer(config, 10))
    fast = []
    for _ in range(3):
        state, _ = train_step(state, {"targets": jnp.array([1.0])})
        fast.append(optax.tree.get(state.opt_state, "z")["layers_0"]["bias"])
    averaged = evaluation_params(state)["layers_0"]["bias"]
    np.testing.assert_allclose(averaged, np.mean(fast, axis=0), rtol=1e-5)
    assert abs(averaged - state.params["layers_0"]["bias"]).max() > 1e-3


def test_the_same_state_and_batch_give_the_same_bits_and_the_next_step_other_dropout():
    state, batch = language_state(optax.sgd(0.0), dropout=0.5), language_batch()
    step = jax.jit(train_step)
    first, metrics = step(state, batch)
    again, same = step(state, batch)
    assert_same((again, same), (first, metrics))
    assert_same(first.params, state.params)  # at a rate of zero
    assert_same(first.key, state.key)
    _, later = step(first, batch)
    assert abs(later["loss"] - metrics["loss"]) > 1e-3


@pytest.fixture(scope="module")
def lesson():
    """A small model, a batch, and what all optimizers share: the compiled loss and gradient."""
    state, batch = language_state(), language_batch()

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        sums = causal_lm(state.model, params, batch)
        return sums["loss"] / sums["count"]

    return state, loss


@pytest.mark.parametrize(
    ("rule", "rate"),
    [
        ("adamw", 0.03),
        ("muon", 0.03),  # more spikes now and then, at steps that rounding decides
        ("lion", 0.003),
        ("adafactor", 0.03),
        ("schedule_free", 0.03),
    ],
)
def test_each_optimizer_overfits_one_batch(lesson, rule, rate):
    config = OptimConfig(
        name=rule,
        learning_rate=rate,
        adam_learning_rate=0.03,
        schedule="constant",
        warmup_steps=5,
    )
    state, loss = lesson
    optimizer = make_optimizer(config, 100)
    state = state.replace(opt_state=optimizer.init(state.params))

    @jax.jit
    def update(state, gradients):
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(params=params, opt_state=opt_state)

    assert loss(state.params)[0] > 2.0
    for _ in range(100):
        state = update(state, loss(state.params)[1])
    assert loss(evaluation_params(state))[0] < 0.1


def test_a_first_state_is_at_step_zero_and_its_average_a_copy():
    model = tiny_model("learned", num_layers=1)[0]
    init = lambda key: init_state(model, optax.sgd(0.1), causal_lm, key, ema_decay=0.9)  # noqa: E731
    state = jax.eval_shape(init, jax.random.key(0))
    assert state.step.shape == ()
    assert jax.tree.map(jnp.shape, state.ema) == jax.tree.map(jnp.shape, state.params)
    assert (state.accumulate_steps, state.ema_decay) == (1, 0.9)
