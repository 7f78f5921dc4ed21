"""The rules of sampling keep what they say and draw from the distribution they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxlm.generation.sampling import Sampling, choose, greedy, keep_top_k, keep_top_p, restrict

NUM_DRAWS = 4000
DRAWN = jnp.asarray([0.3, 1.2, -0.4, 2.1, 0.9, -1.5, 1.7])

masked = jax.jit(lambda rule, logits, bound: rule(logits, bound) > -jnp.inf, static_argnums=0)
choose_jitted = jax.jit(choose)


def sampling(batch_size, temperature=1.0, top_k=10**6, top_p=1.0) -> Sampling:
    full = lambda value, dtype: jnp.full(batch_size, value, dtype)  # noqa: E731
    return Sampling(full(temperature, "float32"), full(top_k, "int32"), full(top_p, "float32"))


def kept(rule, probabilities, bound) -> list[int]:
    logits = jnp.log(jnp.asarray([probabilities], jnp.float32))
    return np.flatnonzero(masked(rule, logits, jnp.asarray([bound]))[0]).tolist()


@pytest.mark.parametrize(
    ("top_k", "tokens"),
    [(1, [2]), (2, [1, 2]), (3, [0, 1, 2, 4]), (4, [0, 1, 2, 4]), (9, [0, 1, 2, 3, 4])],
)
def test_top_k_keeps_the_k_likeliest_and_the_ties_of_the_last(top_k, tokens):
    assert kept(keep_top_k, [0.125, 0.25, 0.45, 0.05, 0.125], top_k) == tokens


@pytest.mark.parametrize(
    ("top_p", "tokens"),
    [
        (1e-9, [2]),
        (0.44, [2]),
        (0.46, [1, 2]),
        (0.69, [1, 2]),
        (0.71, [0, 1, 2, 4]),  # 0 and 4 tie
        (0.94, [0, 1, 2, 4]),
        (0.96, [0, 1, 2, 3, 4]),
        (1.0, [0, 1, 2, 3, 4]),
    ],
)
def test_top_p_keeps_the_smallest_likeliest_share_and_the_ties_of_the_last(top_p, tokens):
    assert kept(keep_top_p, [0.125, 0.25, 0.45, 0.05, 0.125], top_p) == tokens


def test_top_k_and_top_p_agree_with_sorting():
    generator = np.random.default_rng(0)
    B, V = 64, 97
    logits = generator.normal(size=(B, V)).astype(np.float32) * 3
    logits[::2] = np.round(logits[::2])  # many ties, zeros of both signs among them
    logits[5, :90] = -np.inf
    above = logits[:, None, :] > logits[:, :, None]  # (B, V, V): the tokens above each token
    top_k = generator.integers(1, V + 20, size=B).astype(np.int32)
    expected = above.sum(-1) < top_k[:, None]
    found = masked(keep_top_k, jnp.asarray(logits), jnp.asarray(top_k))
    np.testing.assert_array_equal(found, expected & (logits > -np.inf))

    probabilities = np.exp(logits - logits.max(-1, keepdims=True)).astype(np.float64)
    probabilities /= probabilities.sum(-1, keepdims=True)
    mass = (above * probabilities[:, None]).sum(-1)
    top_p = generator.uniform(0.01, 1, size=B).astype(np.float32)
    assert np.abs(mass - top_p[:, None]).min() > 1e-6, "a border that fp32 may not tell"
    found = masked(keep_top_p, jnp.asarray(logits), jnp.asarray(top_p))
    np.testing.assert_array_equal(found, (mass < top_p[:, None]) & (logits > -np.inf))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_cut_is_exact_for_logits_of_any_size(scale):
    logits = jnp.asarray([[3.0, -1.0, 2.0, 0.0, -2.0]]) * scale
    for k in range(1, 6):
        assert int(masked(keep_top_k, logits, jnp.asarray([k])).sum()) == k


def test_a_cut_tells_neighbouring_floats_apart():
    x = np.float32(-1.7)
    logits = jnp.asarray([[np.nextafter(x, np.float32(-9)), x, np.nextafter(x, np.float32(9))]])
    found = [masked(keep_top_k, logits, jnp.asarray([k]))[0].tolist() for k in (1, 2)]
    assert found == [[False, False, True], [False, True, True]]


def promised(temperature=1.0, top_k=10**6, top_p=1.0) -> np.ndarray:
    """The distribution over DRAWN by the definitions, in NumPy, by sorting."""
    scaled = np.asarray(DRAWN, np.float64) / temperature
    probabilities = np.exp(scaled)
    order = np.argsort(-scaled)
    probabilities[order[top_k:]] = 0
    probabilities /= probabilities.sum()
    before = np.cumsum(probabilities[order]) - probabilities[order]
    probabilities[order[before >= top_p]] = 0
    return probabilities / probabilities.sum()


SETTINGS: list[dict] = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 3},
    {"top_p": 0.7},
    {"temperature": 2.0, "top_k": 5, "top_p": 0.8},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_rules_compose_to_the_promised_distribution(settings):
    logits = restrict(DRAWN[None], sampling(1, **settings))[0]
    np.testing.assert_allclose(jax.nn.softmax(logits), promised(**settings), rtol=1e-5)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_draws_follow_the_promised_distribution(settings):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), jnp.arange(NUM_DRAWS))
    logits = jnp.tile(DRAWN, (NUM_DRAWS, 1))
    drawn = np.asarray(choose_jitted(logits, sampling(NUM_DRAWS, **settings), keys))
    counts = np.bincount(drawn, minlength=len(DRAWN))
    expected = promised(**settings) * NUM_DRAWS
    assert not counts[expected == 0].any()
    possible = expected > 0
    assert stats.chisquare(counts[possible], expected[possible]).pvalue > 1e-3


def test_temperature_zero_is_greedy_and_takes_the_first_of_equals():
    logits = jnp.asarray([[0.0, 2.0, 2.0, 1.0]] * 8)
    keys = jax.random.split(jax.random.key(0), 8)
    assert choose_jitted(logits, sampling(8, temperature=0.0), keys).tolist() == [1] * 8
    assert greedy(logits).tolist() == [1] * 8


def test_rows_are_chosen_each_by_its_own_settings():
    logits = jnp.tile(DRAWN, (3, 1))
    rows = Sampling(jnp.asarray([0.0, 1.0, 0.5]), jnp.asarray([9, 2, 9]), jnp.asarray([1, 1, 0.6]))
    together = restrict(logits, rows)
    for i, row in enumerate(
        ({"temperature": 0.0}, {"top_k": 2}, {"temperature": 0.5, "top_p": 0.6})
    ):
        alone = restrict(logits[:1], sampling(1, **row))[0]
        np.testing.assert_allclose(together[i], alone, rtol=1e-6)
    assert [int((row > -jnp.inf).sum()) for row in together] == [7, 2, 2]


def test_a_very_cold_temperature_stays_finite():
    logits = jnp.asarray([[1e4, -1e4, 1e4 - 1.0]])
    cold = sampling(1, temperature=1e-5, top_k=2, top_p=0.9)
    drawn = choose_jitted(logits, cold, jax.random.split(jax.random.key(0), 1))
    assert drawn.tolist() == [0]
