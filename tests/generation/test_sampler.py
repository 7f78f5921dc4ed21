"""The rules of sampling keep what they say and draw from the distribution they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxlm.generation import GenerationOptions
from jaxlm.generation.rules import Context, allow_only, keep_top_k, keep_top_p
from jaxlm.generation.sampler import (
    OptionArrays,
    greedy,
    option_arrays,
    penalise,
    restrict,
    sample_tokens,
)

NUM_DRAWS = 4000
DRAWN = jnp.asarray([0.3, 1.2, -0.4, 2.1, 0.9, -1.5, 1.7])

masked = jax.jit(lambda rule, logits, bound: rule(logits, bound) > -jnp.inf, static_argnums=0)
sample_jitted = jax.jit(sample_tokens)
process_jitted = jax.jit(
    lambda x, context, options: restrict(penalise(x, context, options), options)
)


def arrays(num_rows: int, **options) -> OptionArrays:
    """The options of so many rows, each row a stream of its own."""
    rows = [GenerationOptions(**options, row=i) for i in range(num_rows)]
    return option_arrays(rows, num_rows, len(DRAWN))


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


BEFORE = [1, 3, 1, 6]  # the prompt's first token, then three generated ones


def promised(
    temperature=1.0,
    top_k=10**6,
    top_p=1.0,
    min_p=0.0,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    no_repeat_ngram=None,
    bias=None,
    banned_tokens=(),
) -> np.ndarray:
    """The distribution over DRAWN after BEFORE by the definitions, in NumPy, by sorting."""
    logits = np.asarray(DRAWN, np.float64)
    for token in set(BEFORE):
        logits[token] *= 1 / repetition_penalty if logits[token] > 0 else repetition_penalty
    for token in BEFORE[1:]:
        logits[token] -= frequency_penalty
    for token in set(BEFORE[1:]):
        logits[token] -= presence_penalty
    if no_repeat_ngram:
        for i in range(len(BEFORE) - no_repeat_ngram + 1):
            *start, end = BEFORE[i : i + no_repeat_ngram]
            if start == BEFORE[len(BEFORE) - len(start) :]:
                logits[end] = -np.inf
    for token, x in (bias or {}).items():
        logits[token] += x
    logits[list(banned_tokens)] = -np.inf
    scaled = logits / temperature
    probabilities = np.exp(scaled)
    order = np.argsort(-scaled)
    probabilities[order[top_k:]] = 0
    probabilities /= probabilities.sum()
    before = np.cumsum(probabilities[order]) - probabilities[order]
    probabilities[order[before >= top_p]] = 0
    probabilities[probabilities < min_p * probabilities.max()] = 0
    return probabilities / probabilities.sum()


OPTIONS: list[dict] = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 3},
    {"top_p": 0.7},
    {"min_p": 0.3},
    {"repetition_penalty": 1.5},
    {"presence_penalty": 0.8},
    {"frequency_penalty": 0.6},
    {"no_repeat_ngram": 1},
    {"bias": {0: 1.5, 3: -2.0}},
    {"banned_tokens": [3, 5]},
    {"temperature": 2.0, "top_k": 5, "top_p": 0.8},
    {"temperature": 1.5, "top_p": 0.9, "repetition_penalty": 1.3, "min_p": 0.1, "bias": {2: 1}},
]


def after(num_rows: int, tokens: list[int]) -> Context:
    """The context of rows that hold these tokens, the first of them from the prompt."""
    full = lambda value: jnp.full(num_rows, value, jnp.int32)  # noqa: E731
    # What lies behind the tokens does not count.
    padded = jnp.tile(jnp.asarray([*tokens, 5, 5]), (num_rows, 1))
    return Context(padded, full(len(tokens)), full(1), full(len(tokens) - 1))


def distribution(tokens: list[int], **options) -> np.ndarray:
    """What the rules leave of DRAWN."""
    logits = process_jitted(DRAWN[None], after(1, tokens), arrays(1, **options))
    return np.asarray(jax.nn.softmax(logits))[0]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rules_compose_to_the_promised_distribution(options):
    np.testing.assert_allclose(
        distribution(BEFORE, **options), promised(**options), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_draws_follow_the_promised_distribution(options):
    drawn = draws(NUM_DRAWS, BEFORE, **options)
    counts = np.bincount(drawn, minlength=len(DRAWN))
    expected = promised(**options) * NUM_DRAWS
    assert not counts[expected == 0].any()
    possible = expected > 0
    assert stats.chisquare(counts[possible], expected[possible]).pvalue > 1e-3


def test_draws_of_one_row_follow_the_distribution_from_token_to_token():
    """The keys of a row's tokens are as good as those of many rows."""
    context = after(NUM_DRAWS, BEFORE).replace(num_generated=jnp.arange(NUM_DRAWS))
    options = jax.tree.map(lambda x: jnp.repeat(x[:1], NUM_DRAWS, axis=0), arrays(1))
    drawn = sample_jitted(jnp.tile(DRAWN, (NUM_DRAWS, 1)), context, options, options.row_keys())
    counts = np.bincount(np.asarray(drawn), minlength=len(DRAWN))
    assert stats.chisquare(counts, promised() * NUM_DRAWS).pvalue > 1e-3


def draws(num_draws: int, tokens: list[int], logits=DRAWN, **options) -> np.ndarray:
    options = arrays(num_draws, **options)
    logits = jnp.tile(logits, (num_draws, 1))
    return np.asarray(sample_jitted(logits, after(num_draws, tokens), options, options.row_keys()))


def test_an_ngram_is_banned_only_where_it_would_come_a_second_time():
    tokens = [1, 3, 1, 6, 1, 3]
    banned = lambda n: np.flatnonzero(distribution(tokens, no_repeat_ngram=n) == 0)  # noqa: E731
    assert banned(2).tolist() == [1]  # 3 1
    assert banned(3).tolist() == [1]  # 1 3 1
    assert banned(4).tolist() == []
    assert banned(9).tolist() == []


def test_where_every_token_is_banned_none_is():
    unbanned = distribution(BEFORE)
    np.testing.assert_array_equal(distribution(BEFORE, banned_tokens=range(7)), unbanned)


def test_stop_tokens_wait_for_the_fewest_new_tokens():
    stops = {"stop_tokens": [3, 6], "min_new_tokens": 4}
    assert set(np.flatnonzero(distribution(BEFORE, **stops) == 0)) == {3, 6}
    assert (distribution([*BEFORE, 0], **stops) > 0).all()


def test_only_tokens_with_a_bit_are_allowed():
    logits = jnp.zeros((2, 70))
    words = np.zeros((2, 3), np.uint32)
    words[0, 0], words[0, 2], words[1, 1] = 0b101, 1 << 5, 1 << 31
    kept = np.asarray(jax.jit(allow_only)(logits, jnp.asarray(words)) == 0)
    assert np.flatnonzero(kept[0]).tolist() == [0, 2, 69]
    assert np.flatnonzero(kept[1]).tolist() == [63]


def test_temperature_zero_is_greedy_and_takes_the_first_of_equals():
    logits = jnp.asarray([0.0, 2.0, 2.0, 1.0, -1.0, 0.0, 0.0])
    assert draws(8, [0], logits, temperature=0.0).tolist() == [1] * 8
    assert greedy(logits[None]).tolist() == [1]


def test_greedy_takes_the_likeliest_of_what_the_rules_leave():
    found = draws(1, BEFORE, temperature=0.0, banned_tokens=[3], presence_penalty=1.0)
    assert found.tolist() == [4]  # 3 is banned, 6 and 1 were generated before


def test_rows_are_chosen_each_by_its_own_options():
    own: list[dict] = [
        {"temperature": 0.0},
        {"top_k": 2},
        {"temperature": 0.5, "top_p": 0.6, "repetition_penalty": 2.0},
        {"bias": {2: 3.0}, "no_repeat_ngram": 1},
    ]
    rows = option_arrays([GenerationOptions(**row) for row in own], 4, len(DRAWN))
    together = process_jitted(jnp.tile(DRAWN, (4, 1)), after(4, BEFORE), rows)
    for i, row in enumerate(own):
        alone = process_jitted(DRAWN[None], after(1, BEFORE), arrays(1, **row))[0]
        np.testing.assert_allclose(together[i], alone, rtol=1e-6)
    assert [int((row > -jnp.inf).sum()) for row in together] == [7, 2, 3, 4]


def test_a_very_cold_temperature_stays_finite():
    logits = jnp.asarray([1e4, -1e4, 1e4 - 1.0, -1e4, -1e4, -1e4, -1e4])
    assert draws(1, [0], logits, temperature=1e-5, top_k=2, top_p=0.9).tolist() == [0]
