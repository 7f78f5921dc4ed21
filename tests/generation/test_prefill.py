"""Caches hold what the prompts are, shared parts computed once."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.generation import prefill
from jaxlm.generation.prefill import SHARED, Prefix, extend, fill_cache, head
from jaxlm.nn.block import KVCache
from tests.generation.reference import Reference, ragged


@pytest.fixture(scope="module")
def tiny() -> Reference:
    return Reference("learned", 600)


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """How many tokens each call of prefill caches."""
    counts: list[int] = []
    original = prefill.prefill

    def counting(*args):
        counts.append(int(args[4].sum()))
        return original(*args)

    monkeypatch.setattr(prefill, "prefill", counting)
    return counts


def check(tiny: Reference, cache: KVCache, rows: list[list[int]]) -> None:
    """Every row holds the keys and values that it has alone."""
    for i, row in enumerate(rows):
        alone = fill_cache(tiny.model, tiny.params, [row], cache.num_slots)
        assert int(cache.lengths[i]) == len(row)
        for ours, expected in zip(cache.layers, alone.layers, strict=True):
            for name in ("key", "value"):
                found = np.asarray(getattr(ours, name))[i, :, : len(row)]
                np.testing.assert_allclose(
                    found, np.asarray(getattr(expected, name))[0, :, : len(row)], atol=1e-5
                )


def test_a_long_prompt_is_cached_in_chunks(tiny, computed):
    (row,) = ragged([500], vocab_size=19)
    cache = fill_cache(tiny.model, tiny.params, [row], 512)
    assert computed == [256, 244]
    # The next token sees what it would see in the model's own forward pass.
    part, _ = extend(tiny.model, tiny.params, jnp.asarray([[3]]), cache)
    logits = head(tiny.model, tiny.params, part)[0, 0]
    np.testing.assert_allclose(logits, tiny.logits([*row, 3]), atol=1e-4)


def test_the_same_prompt_many_times_is_computed_once(tiny, computed):
    a, b = ragged([20, 9], vocab_size=19)
    rows = [a, a, b, a, b]
    cache = fill_cache(tiny.model, tiny.params, rows, 128)
    assert sum(computed) == len(a) + len(b)
    check(tiny, cache, rows)


def test_what_all_prompts_begin_with_is_computed_once(tiny, computed):
    (opening,) = ragged([SHARED + 5], vocab_size=19)
    rows = [[*opening, 1, 2, 3], [*opening, 4], [*opening, 5, 6]]
    cache = fill_cache(tiny.model, tiny.params, rows, 128)
    assert sum(computed) == len(opening) + 6
    check(tiny, cache, rows)


@pytest.mark.parametrize("num_slots", [128, 256])
def test_a_prefix_serves_as_far_as_the_prompt_goes_with_it(tiny, computed, num_slots):
    (row,) = ragged([60], vocab_size=19)
    prefix = Prefix(row, fill_cache(tiny.model, tiny.params, [row], 128))
    computed.clear()
    other = [*row[:40], 18 - row[40], 1, 2]
    cache = fill_cache(tiny.model, tiny.params, [other], num_slots, prefix)
    assert sum(computed) == 3
    check(tiny, cache, [other])
