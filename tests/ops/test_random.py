"""The hashed random bits are uniform and independent, and so is what is drawn with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.ops.random import dropout, hash_bits, normal, unit_interval

SHAPE = (512, 1024)


@pytest.fixture(scope="module")
def bits():
    return np.asarray(hash_bits(jax.random.key(7), SHAPE))


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_every_byte_is_uniform(bits, shift):
    counts = np.bincount((bits.ravel() >> shift) & 255, minlength=256)
    expected = bits.size / 256
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert 150 < chi_square < 400  # mean 255, standard deviation 22.6


def test_rows_columns_and_neighbours_are_uncorrelated(bits):
    x = bits / 2**32 - 0.5
    bound = 5 / 12 / np.sqrt(x.size)  # five standard deviations of a mean of products
    for lag in (1, 2, 64):
        assert abs((x[lag:] * x[:-lag]).mean()) < bound
        assert abs((x[:, lag:] * x[:, :-lag]).mean()) < bound


def test_keys_give_unrelated_bits(bits):
    x = bits / 2**32 - 0.5
    folds = [jax.random.fold_in(jax.random.key(7), step) for step in range(3)]
    for key in (jax.random.key(8), *folds):
        y = np.asarray(hash_bits(key, SHAPE)) / 2**32 - 0.5
        assert abs((x * y).mean()) < 5 / 12 / np.sqrt(x.size)


def test_the_same_key_gives_the_same_bits_under_jit(bits):
    again = jax.jit(lambda key: hash_bits(key, SHAPE))(jax.random.key(7))
    np.testing.assert_array_equal(again, bits)


def test_raw_and_typed_keys_give_the_same_bits():
    key = jax.random.key(3)
    raw = hash_bits(jax.random.key_data(key), (5,))
    np.testing.assert_array_equal(raw, hash_bits(key, (5,)))


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_dropout_keeps_the_rate_and_the_expectation(rate):
    out = np.asarray(dropout(jnp.ones(SHAPE), rate, jax.random.key(0)))
    deviation = np.sqrt(rate * (1 - rate) / out.size)
    assert abs((out == 0).mean() - rate) < 5 * deviation
    np.testing.assert_allclose(out[out != 0], 1 / (1 - rate), rtol=1e-6)
    assert abs(out.mean() - 1) < 5 * deviation / (1 - rate)


def test_dropout_at_rate_zero_is_the_identity():
    x = jnp.arange(6.0)
    assert dropout(x, 0.0, jax.random.key(0)) is x


def test_what_is_dropped_gets_no_gradient():
    key = jax.random.key(1)
    gradient = jax.grad(lambda x: dropout(x, 0.5, key).sum())(jnp.ones(64))
    np.testing.assert_array_equal(gradient, dropout(jnp.ones(64), 0.5, key))


def test_normal_numbers_have_the_moments_and_tails_of_the_distribution():
    x = np.asarray(normal(jax.random.key(1), SHAPE), np.float64)
    moments = [(x**power).mean() for power in (1, 2, 3, 4)]
    # Standard errors of the moments are sqrt(1, 2, 15, 96) / sqrt(size).
    errors = np.sqrt([1, 2, 15, 96]) / np.sqrt(x.size)
    assert np.all(np.abs(np.subtract(moments, [0, 1, 0, 3])) < 5 * errors)
    share = (np.abs(x) > 3).mean()
    assert abs(share - 0.0027) < 5 * np.sqrt(0.0027 / x.size)
    assert np.isfinite(x).all()


def test_a_uniform_number_is_never_0_nor_1():
    ends = np.asarray(unit_interval(jnp.array([0, 2**32 - 1], jnp.uint32)))
    assert 0 < ends[0] < 1e-6
    assert 1 - 1e-6 < ends[1] < 1
    assert np.isfinite(-np.log(-np.log(ends))).all()
