"""Norms and cross-entropy against NumPy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops.reductions import cross_entropy, layer_norm, rms_norm, target_sums

EPS = 1e-2  # large enough to be missed


def inputs():
    generator = np.random.default_rng(0)
    return 1.5 + 2 * generator.normal(size=(3, 4, 9)), *generator.normal(size=(2, 9))


@pytest.mark.parametrize("with_bias", [True, False])
def test_layer_norm_equals_the_formula(with_bias):
    x, scale, bias = inputs()
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt(x.var(-1, keepdims=True) + EPS) * scale + bias * with_bias
    x, scale, bias = (jnp.asarray(a, jnp.float32) for a in (x, scale, bias))
    out = layer_norm(x, scale, bias if with_bias else None, EPS)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_rms_norm_equals_the_formula():
    x, scale, _ = inputs()
    expected = x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * scale
    out = rms_norm(jnp.asarray(x, jnp.float32), jnp.asarray(scale, jnp.float32), EPS)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_norms_compute_in_float32():
    x, scale, bias = (jnp.asarray(a, jnp.bfloat16) for a in inputs())
    exact = [a.astype(jnp.float32) for a in (x, scale, bias)]
    assert layer_norm(x, scale, bias, EPS).dtype == jnp.float32
    # Computed in bfloat16 they would differ by 1e-2.
    ours, theirs = layer_norm(x, scale, bias, EPS), layer_norm(*exact, EPS)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(rms_norm(x, scale, EPS), rms_norm(*exact[:2], EPS), atol=1e-6)


@pytest.mark.parametrize("level", [1000.3, 3e4])
def test_layer_norm_of_a_constant_row_is_finite(level):
    x, scale = jnp.full((1, 24), level), jnp.ones(24)
    value, gradient = jax.value_and_grad(lambda x: layer_norm(x, scale, None, 1e-5).sum())(x)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_cross_entropy_equals_the_formula():
    logits = np.random.default_rng(0).normal(size=(2, 3, 5)) * 3
    targets = np.array([[0, 4, 2], [1, 1, 3]])
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(probabilities, targets[..., None], -1))[..., 0]
    out = cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(targets))
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_cross_entropy_survives_huge_logits_and_half_precision():
    logits = jnp.array([[3e4, 0.0, -3e4]], jnp.bfloat16)
    out = cross_entropy(jnp.tile(logits, (3, 1)), jnp.arange(3))
    assert out.dtype == jnp.float32
    top = float(logits[0, 0])
    np.testing.assert_allclose(out, [0, top, 2 * top])


def test_a_target_that_is_no_token_has_no_loss_but_where_its_weight_is_0():
    logits, targets = jnp.zeros((1, 4, 8)), jnp.array([[3, 8, -1, -100]])
    np.testing.assert_array_equal(jnp.isnan(cross_entropy(logits, targets)[0]), [0, 1, 1, 1])

    def loss(logits, weights):
        return target_sums(logits, targets, jnp.array([weights]))["loss"]

    for weights, finite in (([1.0, 0, 0, 0], True), ([1.0, 1.0, 0, 0], False)):
        assert jnp.isfinite(loss(logits, weights)) == finite
    assert jnp.isfinite(jax.grad(loss)(logits, [1.0, 0, 0, 0])).all()


def test_the_gradient_of_a_loss_scatters_nothing():
    logits, targets = jnp.zeros((2, 3, 8)), jnp.zeros((2, 3), int)
    gradient = jax.grad(lambda logits: cross_entropy(logits, targets).sum())
    assert "scatter" not in jax.jit(gradient).lower(logits).as_text()
