"""The KV cache is written where it is told to, and nowhere else."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.nn.block import FEW, LayerCache, init_cache
from tests.fixtures.tiny import tiny_config


def test_rows_are_written_from_their_own_starts():
    old = LayerCache(jnp.zeros((2, 1, 4, 1)), jnp.full((2, 1, 4, 1), 9.0))
    key = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 1, 2, 1)
    new = old.write(key, -key, jnp.array([0, 2]))
    np.testing.assert_array_equal(new.key[..., 0], [[[1, 2, 0, 0]], [[0, 0, 3, 4]]])
    np.testing.assert_array_equal(new.value[..., 0], [[[-1, -2, 9, 9]], [[9, 9, -3, -4]]])


def test_an_empty_cache_has_the_shape_and_type_of_the_config():
    cache = init_cache(tiny_config(compute_dtype="bfloat16"), 3, 5)
    assert (len(cache.layers), cache.num_slots) == (2, 5)
    assert cache.layers[0].key.shape == cache.layers[1].value.shape == (3, 2, 5, 6)
    assert cache.layers[0].key.dtype == jnp.bfloat16
    assert cache.lengths.tolist() == [0, 0, 0]


def test_new_entries_take_the_type_of_the_cache():
    cache = init_cache(tiny_config(compute_dtype="bfloat16"), 1, 2).layers[0]
    entry = jnp.ones((1, 2, 1, 6))
    assert cache.write(entry, entry, jnp.array([1])).value.dtype == jnp.bfloat16


@pytest.mark.parametrize("start", [0, 3, 10, 30, 40])
def test_many_entries_are_written_as_far_as_there_is_room(start):
    S, T = 40, FEW + 4
    old = jnp.full((1, 1, S, 1), -1.0)
    new = jnp.arange(T, dtype=jnp.float32).reshape(1, 1, T, 1)
    written = LayerCache(old, old).write(new, new, jnp.array([start])).key.ravel()
    expected = np.full(S, -1.0)
    expected[start : start + T] = np.arange(T)[: S - start]
    np.testing.assert_array_equal(written, expected)
