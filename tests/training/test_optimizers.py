"""Schedules against literals, and which parameters each update rule touches, and how."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import OptimConfig
from jaxlm.models.parameters import parameter_kinds
from jaxlm.training.optimizers import (
    make_optimizer,
    make_schedule,
    orthogonal_updates,
    orthogonalise,
)
from tests.fixtures.tiny import random_like, tiny_model

RULES = ("adamw", "muon", "lion", "adafactor", "schedule_free")
PARAMS = tiny_model("rotary", num_layers=1, bias=True)[1]["params"]


def by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(part.key for part in path): np.asarray(leaf) for path, leaf in leaves}


def one_update(config, gradients, params=PARAMS):
    """What one step adds to the params."""
    optimizer = make_optimizer(config, 10)
    update = jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p)[0])
    return update(gradients, params)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # Steps: first, last of the warm-up, its next, middle of the rest, last.
        ("constant", {0: 0.25, 3: 1, 4: 1, 12: 1, 19: 1}),
        ("linear", {0: 0.25, 3: 1, 4: 1, 12: 0.6, 20: 0.2}),
        ("cosine", {0: 0.25, 3: 1, 4: 1, 8: 0.2 + 0.8 * (1 + 0.5**0.5) / 2, 12: 0.6, 20: 0.2}),
        ("wsd", {0: 0.25, 3: 1, 4: 1, 15: 1, 16: 1, 18: 0.6, 20: 0.2}),
        ("inverse_sqrt", {0: 0.25, 1: 0.5, 3: 1, 15: 0.5}),
    ],
)
def test_schedules_warm_up_and_take_their_course(schedule, expected):
    config = OptimConfig(schedule=schedule, warmup_steps=4, final_fraction=0.2, decay_fraction=0.2)
    rate = make_schedule(config, 20, peak=3.0)
    found = {step: float(rate(step)) / 3.0 for step in expected}
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd", "inverse_sqrt"])
def test_without_warm_up_the_first_step_has_the_peak_rate(schedule):
    rate = make_schedule(OptimConfig(schedule=schedule, warmup_steps=0), 20, peak=3.0)
    assert float(rate(0)) == pytest.approx(3.0)


@pytest.mark.parametrize("rule", RULES)
def test_weight_decay_shrinks_all_but_vectors_and_nothing_else(rule):
    config = OptimConfig(
        name=rule,
        learning_rate=0.1,
        adam_learning_rate=0.05,
        weight_decay=0.2,
        schedule="constant",
        warmup_steps=0,
    )
    updates = by_path(one_update(config, jax.tree.map(jnp.zeros_like, PARAMS)))
    kinds = by_path(parameter_kinds(PARAMS))
    assert set(map(str, kinds.values())) == {"matrix", "head", "embedding", "vector"}
    for path, weight in by_path(PARAMS).items():
        rate = 0.05 if rule == "muon" and kinds[path] != "matrix" else 0.1
        expected = 0 * weight if kinds[path] == "vector" else -rate * 0.2 * weight
        np.testing.assert_allclose(updates[path], expected, atol=1e-6, err_msg=path)


def test_a_gradient_above_the_norm_is_clipped_to_it():
    # With this epsilon Adam's first step is rate * g / (|g| + 1): it tells the gradient's size.
    params = {"layers_0": {"kernel": jnp.zeros((1, 2)), "bias": jnp.zeros(1)}}
    gradients = {"layers_0": {"kernel": jnp.array([[6.0, 0.0]]), "bias": jnp.array([8.0])}}
    common = {"schedule": "constant", "warmup_steps": 0, "learning_rate": 1.0, "eps": 1.0}
    for clip, norm in ((1.0, 1.0), (5.0, 5.0), (20.0, 10.0), (None, 10.0)):
        config = OptimConfig(weight_decay=0.0, clip_norm=clip, **common)
        updates = one_update(config, gradients, params)["layers_0"]
        kernel, bias = 0.6 * norm, 0.8 * norm
        np.testing.assert_allclose(updates["kernel"], [[-kernel / (kernel + 1), 0]], rtol=1e-5)
        np.testing.assert_allclose(updates["bias"], [-bias / (bias + 1)], rtol=1e-5)


@pytest.mark.parametrize("shape", [(24, 64), (64, 24), (48, 48)])
def test_orthogonalised_updates_have_singular_values_near_one(shape):
    noise = np.random.default_rng(0).normal(size=(2, *shape))
    u, _, vt = np.linalg.svd(noise, full_matrices=False)
    leaves = jnp.asarray(u * np.geomspace(1, 20, min(shape)) @ vt, jnp.float32)
    for i, update in enumerate(orthogonal_updates(list(leaves))):
        update = np.asarray(update) / max(1, shape[1] / shape[0]) ** 0.5
        values = u[i].T @ update @ vt[i].T  # diagonal: the singular vectors are the same
        assert 0.6 < np.diag(values).min() <= np.diag(values).max() < 1.3
        assert np.abs(values - np.diag(np.diag(values))).max() < 1e-3


def test_matrices_of_a_batch_are_orthogonalised_apart():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 8)), jnp.float32)
    both = orthogonalise(x * jnp.array([1.0, 100.0])[:, None, None])
    np.testing.assert_allclose(both[1], orthogonalise(x[1:])[0], atol=1e-5)


def test_muon_orthogonalises_the_layer_matrices_and_leaves_the_rest_to_adam():
    gradients = random_like(PARAMS, seed=3)
    config = OptimConfig(
        name="muon",
        learning_rate=0.1,
        adam_learning_rate=0.01,
        weight_decay=0.0,
        schedule="constant",
        warmup_steps=0,
    )
    updates, kinds = by_path(one_update(config, gradients)), by_path(parameter_kinds(PARAMS))
    for path, gradient in by_path(gradients).items():
        if kinds[path] == "matrix":
            fan_in, fan_out = gradient.shape
            values = np.linalg.svd(updates[path])[1] / max(1, fan_out / fan_in) ** 0.5
            assert 0.06 < values.min() <= values.max() < 0.13, path
        else:  # the first step of Adam is the sign
            np.testing.assert_allclose(updates[path], -0.01 * np.sign(gradient), atol=1e-5)


def test_muon_goes_on_by_momentum_where_gradients_vanish():
    config = OptimConfig(name="muon", weight_decay=0.0, schedule="constant", warmup_steps=0)
    params = {"layers_0": {"kernel": jnp.zeros((4, 6))}}
    optimizer = make_optimizer(config, 10)
    gradient = random_like(params, seed=3)
    first, state = optimizer.update(gradient, optimizer.init(params), params)
    second, _ = optimizer.update(jax.tree.map(jnp.zeros_like, gradient), state, params)
    kernels = [np.asarray(update["layers_0"]["kernel"]) for update in (first, second)]
    np.testing.assert_allclose(kernels[1], kernels[0], atol=1e-5)
    assert np.abs(kernels[0]).max() > 1e-4


def test_a_kernel_of_three_dims_is_left_to_adam():
    config = OptimConfig(name="muon", adam_learning_rate=0.01, weight_decay=0.0, warmup_steps=0)
    params = {"attention": {"kernel": jnp.zeros((4, 2, 3))}}
    gradients = random_like(params, seed=3)
    update = one_update(config, gradients, params)["attention"]["kernel"]
    np.testing.assert_allclose(update, -0.01 * np.sign(gradients["attention"]["kernel"]), atol=1e-5)
