"""Rotary and sinusoidal positions against literals, an oracle and their defining properties."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops.positions import (
    rotary_angles,
    rotary_frequencies,
    rotate,
    sinusoids,
    slowed_frequencies,
)


def turned(x, positions, theta=10000.0):
    """A (T, H) head turned by T positions."""
    rotation = rotary_angles(jnp.asarray(positions)[None], rotary_frequencies(x.shape[-1], theta))
    return np.asarray(rotate(jnp.asarray(x, jnp.float32)[None, None], rotation))[0, 0]


def test_rotation_is_literal():
    # Theta 16 and four dims: plane (0, 2) turns by 1 radian a position, plane (1, 3) by 1 / 4.
    x = np.array([[1.0, 0.0, 0.0, 2.0]] * 2)
    expected = [[np.cos(p), -2 * np.sin(p / 4), np.sin(p), 2 * np.cos(p / 4)] for p in (0.0, 3.0)]
    np.testing.assert_allclose(turned(x, [0, 3], theta=16.0), expected, atol=1e-6)


def test_scores_depend_on_the_distance_only():
    query, key = np.random.default_rng(0).normal(size=(2, 1, 8))
    score = lambda q, k: (turned(query, [q]) * turned(key, [k])).sum()  # noqa: E731
    assert score(3, 1) == pytest.approx(score(12, 10), abs=1e-5)
    assert abs(score(3, 1) - score(3, 2)) > 0.01


def test_rotation_keeps_lengths_and_types():
    x = np.random.default_rng(0).normal(size=(5, 8))
    lengths = np.linalg.norm(turned(x, np.arange(5)), axis=-1)
    np.testing.assert_allclose(lengths, np.linalg.norm(x, axis=-1), rtol=1e-5)
    rotation = rotary_angles(jnp.arange(5)[None], rotary_frequencies(8, 10000.0))
    assert rotate(jnp.ones((2, 3, 5, 8), jnp.bfloat16), rotation).dtype == jnp.bfloat16


def test_each_row_is_turned_by_its_own_positions():
    x = jnp.ones((2, 1, 3, 4))
    positions = jnp.array([[0, 1, 2], [5, 6, 7]])
    frequencies = rotary_frequencies(4, 100.0)
    both = rotate(x, rotary_angles(positions, frequencies))
    for row in range(2):
        alone = rotate(x[row : row + 1], rotary_angles(positions[row : row + 1], frequencies))
        np.testing.assert_allclose(both[row], alone[0], atol=1e-6)


def test_slowing_keeps_fast_planes_and_slows_the_slowest_in_full():
    # In 2 pi positions these turn 8, 4, 2 and 1 / 2 times.
    frequencies = jnp.array([8.0, 4.0, 2.0, 0.5])
    turns_per_radian = 2 * np.pi
    slowed = slowed_frequencies(frequencies * turns_per_radian, 4.0, 1.0, 4.0, 1)
    kept = (2 - 1) / (4 - 1)  # between the two bounds a share of each
    expected = [8.0, 4.0, 2 * (kept + (1 - kept) / 4), 0.125]
    np.testing.assert_allclose(slowed / turns_per_radian, expected, rtol=1e-6)


@pytest.mark.parametrize("d_model", [6, 7])
def test_sinusoids_equal_the_formula(d_model):
    positions = np.array([[0, 1, 9], [4, 2, 0]])
    out = np.asarray(sinusoids(jnp.asarray(positions), d_model))
    assert out.shape == (2, 3, d_model)
    for b, t, d in np.ndindex(*out.shape):
        angle = positions[b, t] / 10000 ** ((d // 2 * 2) / d_model)
        expected = np.cos(angle) if d % 2 else np.sin(angle)
        assert out[b, t, d] == pytest.approx(expected, abs=1e-6)
