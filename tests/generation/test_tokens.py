"""Cached, batched, compiled generation gives the tokens that the slow way gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import JaxlmError
from jaxlm.generation import DecodingBatch, GenerationOptions, generate_tokens, score_tokens
from jaxlm.generation.sampler import draw
from jaxlm.generation.tokens import split_rows
from tests.fixtures.tiny import tiny_model
from tests.generation.reference import Reference, likeliest, ragged, stacked

LIMIT, NEW = 256, 200
SHORT = 21  # an odd context, for generation far past it
STRUCTURES = ("learned", "rotary")


@pytest.fixture(scope="module", params=STRUCTURES)
def long(request) -> Reference:
    return Reference(request.param, LIMIT)


@pytest.fixture(scope="module", params=STRUCTURES)
def short(request) -> Reference:
    return Reference(request.param, SHORT)


@pytest.fixture(scope="module")
def rotary() -> Reference:
    return Reference("rotary", SHORT)


def tokens(reference: Reference, prompts: list[list[int]], num_tokens: int, **settings) -> list:
    """What generate_tokens makes of the prompts as one batch; greedy unless told otherwise."""
    settings = {"temperature": 0.0} | settings
    out = generate_tokens(
        reference.model, reference.params, **stacked(prompts), max_new_tokens=num_tokens, **settings
    )
    assert out.dtype == np.int32
    assert out.shape == (len(prompts), num_tokens)
    return out.tolist()


def test_cached_greedy_equals_uncached_greedy_over_200_tokens(long):
    (prompt,) = ragged([LIMIT - NEW], vocab_size=19)
    assert tokens(long, [prompt], NEW) == [long.generate(prompt, NEW, likeliest)]


def test_rows_of_a_ragged_batch_slide_past_the_context_each_as_the_rule_says(short):
    # Shorter than the context, as long, longer, and a single token; over several dispatches.
    prompts = ragged([3, SHORT, 2 * SHORT + 5, 1, SHORT + 1, 12], vocab_size=19)
    expected = [short.generate(prompt, 80, likeliest) for prompt in prompts]
    assert tokens(short, prompts, 80) == expected
    # And a row alone as in the batch.
    assert tokens(short, prompts[2:3], 80) == expected[2:3]


def test_token_t_of_row_i_is_drawn_with_its_own_key(rotary):
    prompts = ragged([3, 9, 5, 6, 2], vocab_size=19)

    def pick(row: int):
        key = jax.random.fold_in(jax.random.key(11), row)

        def pick_token(logits: np.ndarray, t: int) -> int:
            keys = jax.random.fold_in(key, t)[None]
            return int(draw(jnp.asarray(logits)[None] / 0.8, keys)[0])

        return pick_token

    expected = [rotary.generate(prompt, 30, pick(i)) for i, prompt in enumerate(prompts)]
    assert tokens(rotary, prompts, 30, temperature=0.8, seed=11) == expected


def test_a_row_does_not_depend_on_its_neighbours(rotary):
    prompts = ragged([4, 17, 2, 30, 8], vocab_size=19)
    settings = {"temperature": 0.9, "top_k": 7, "top_p": 0.95, "seed": 5}
    batch = tokens(rotary, prompts, 40, **settings)
    assert tokens(rotary, prompts[:1], 40, **settings) == batch[:1]
    assert tokens(rotary, prompts[:3], 40, **settings) == batch[:3]
    others = prompts[:2] + ragged([9, 21, 1], vocab_size=19, seed=8)
    assert tokens(rotary, others, 40, **settings)[:2] == batch[:2]
    assert tokens(rotary, prompts, 40, **settings | {"seed": 6}) != batch


def test_more_tokens_only_add_to_fewer(rotary):
    prompts = ragged([4, 17, 3, 8, 1], vocab_size=19)
    more = tokens(rotary, prompts, 70, temperature=1.0)
    assert [row[:9] for row in more] == tokens(rotary, prompts, 9, temperature=1.0)


def test_the_stop_token_is_included_and_pad_follows(rotary):
    prompts = ragged([6, 2, 11, 1, 5], vocab_size=19)
    free = tokens(rotary, prompts, 40)
    stops = [free[0][12], free[1][25]]
    stopped = tokens(rotary, prompts, 40, stop_tokens=stops, pad_id=-9)
    assert stopped != free
    for row, whole in zip(stopped, free, strict=True):
        end = next((t + 1 for t, token in enumerate(whole) if token in stops), 40)
        assert row == whole[:end] + [-9] * (40 - end)


def test_decoding_ends_when_all_rows_have_stopped(rotary):
    prompts = ragged([6, 2, 11, 1, 5], vocab_size=19)
    free = tokens(rotary, prompts, 40)
    stops = [row[20] for row in free]
    last = max(next(t for t, token in enumerate(row) if token in stops) for row in free)
    options = [GenerationOptions(max_new_tokens=1000, temperature=0.0, stop_tokens=stops)] * len(
        prompts
    )
    batch = DecodingBatch(rotary.model, rotary.params, prompts, options)
    while not batch.done:
        batch.advance()
    # Rows slide at their own times and wait for one another then, which costs a few passes.
    assert max(len(row.generated) for row in batch.rows) == last + 1
    assert batch.num_steps < last + 80


def test_bfloat16_decodes_what_it_computes():
    model, variables = tiny_model("rotary", max_seq_len=64, num_layers=1, compute_dtype="bfloat16")
    prompts = stacked(ragged([5, 9], vocab_size=19))
    out = generate_tokens(model, variables["params"], **prompts, max_new_tokens=6, temperature=0.0)
    logits = jax.jit(model.apply)(variables, jnp.asarray(prompts["ids"]))
    for row, length, scores in zip(out, prompts["lengths"], np.asarray(logits), strict=True):
        scores = scores[length - 1]
        assert scores.max() - scores[row[0]] < 0.1  # an eighth bit of a logit
        assert ((row >= 0) & (row < 19)).all()


def test_refuse_raises_only_where_sliding_would_be_needed(rotary):
    prompts = ragged([6, 11, 3, 2, 1], vocab_size=19)
    fits = SHORT - 11 + 1  # the last new token takes no place
    refused = {"past_context": "refuse"}
    assert tokens(rotary, prompts, fits, **refused) == tokens(rotary, prompts, fits)
    with pytest.raises(JaxlmError, match="do not fit the model's context of 21"):
        tokens(rotary, prompts, fits + 1, **refused)
    with pytest.raises(JaxlmError, match="a prompt of 22 tokens and 1 new"):
        tokens(rotary, ragged([SHORT + 1], vocab_size=19), 1, **refused)


def test_each_row_follows_its_own_settings(rotary):
    prompts = ragged([4, 17, 9], vocab_size=19)
    own = {
        "temperature": [0.0, 1.0, 0.8],
        "top_k": [3, 5, 19],
        "repetition_penalty": [1.0, 1.5, 2.0],
        "max_new_tokens": [30, 8, 21],
        "seed": [5, 5, 6],
    }
    ids = stacked(prompts)
    together = generate_tokens(rotary.model, rotary.params, **ids, pad_id=-1, **own)
    for i, prompt in enumerate(prompts):
        alone = generate_tokens(
            rotary.model,
            rotary.params,
            np.asarray([prompt]),
            **{name: values[i] for name, values in own.items()},
        )
        count = own["max_new_tokens"][i]
        assert together[i, :count].tolist() == alone[0].tolist()
        assert (together[i, count:] == -1).all()


def test_log_probabilities_are_the_models_before_all_rules(rotary):
    prompts = ragged([4, 9], vocab_size=19)
    out = score_tokens(
        rotary.model,
        rotary.params,
        **stacked(prompts),
        max_new_tokens=[6, 11],
        temperature=2.0,
        top_k=4,
        banned_tokens=[3],
        seed=3,
    )
    assert out.counts.tolist() == [6, 11]
    for i, prompt in enumerate(prompts):
        for t in range(out.counts[i]):
            logits = rotary.logits([*prompt, *out.tokens[i, :t].tolist()])
            log_probs = np.asarray(jax.nn.log_softmax(jnp.asarray(logits)))
            assert out.log_probs[i, t] == pytest.approx(log_probs[out.tokens[i, t]], abs=1e-4)
            top = np.sort(log_probs)[::-1][: out.top_tokens.shape[2]]
            np.testing.assert_allclose(out.top_log_probs[i, t], top, atol=1e-4)
            np.testing.assert_allclose(log_probs[out.top_tokens[i, t]], top, atol=1e-4)


def test_logits_of_a_row_alone_and_in_a_batch_agree(long):
    prompts = ragged([3, 40, 17, 33, 9], vocab_size=19)
    settings = {"max_new_tokens": 20, "temperature": 0.0}
    batch = score_tokens(long.model, long.params, **stacked(prompts), **settings)
    for i, prompt in enumerate(prompts):
        alone = score_tokens(long.model, long.params, np.asarray([prompt]), **settings)
        assert batch.tokens[i].tolist() == alone.tokens[0].tolist()
        np.testing.assert_allclose(batch.top_log_probs[i], alone.top_log_probs[0], atol=1e-4)


def test_padding_may_hold_anything(rotary):
    ids = np.asarray([[1, 2, 99, -5]])
    out = generate_tokens(rotary.model, rotary.params, ids, np.asarray([2]), 4, 0.0)
    bare = generate_tokens(rotary.model, rotary.params, jnp.asarray([[1, 2]]), None, 4, 0.0)
    np.testing.assert_array_equal(out, bare)


def test_no_rows_give_no_rows(rotary):
    ids = np.zeros((0, 4), np.int32)
    assert generate_tokens(rotary.model, rotary.params, ids, max_new_tokens=3).shape == (0, 3)


@pytest.mark.parametrize(
    ("ids", "lengths", "message"),
    [
        ([[1, 2]], [0], "row 0 of ids has length 0"),
        ([[1, 2], [3, 4]], [2, 3], "row 1 of ids has length 3"),
        ([[1, 2], [3, 19]], None, "prompt 1 holds token 19, but the model's are 0 to 18"),
        ([[1, -1]], None, "holds token -1"),
    ],
)
def test_rows_that_are_no_prompts_are_refused(rotary, ids, lengths, message):
    lengths = None if lengths is None else np.asarray(lengths)
    with pytest.raises(JaxlmError, match=message):
        generate_tokens(rotary.model, rotary.params, np.asarray(ids), lengths)


def test_ids_that_are_no_rows_are_refused():
    with pytest.raises(JaxlmError, match=r"ids must be rows of tokens, \(B, T\)"):
        split_rows(np.asarray([1, 2]), None)


@pytest.mark.parametrize(
    ("prompt", "settings", "message"),
    [
        ([], {}, "prompt 0 is empty"),
        ([1], {"bias": {-1: 2.0}}, "bias names token -1, but the model's are 0 to 18"),
        ([1], {"banned_tokens": [3, 19]}, "banned_tokens names token 19"),
    ],
)
def test_a_batch_refuses_what_its_model_does_not_have(rotary, prompt, settings, message):
    with pytest.raises(JaxlmError, match=message):
        DecodingBatch(rotary.model, rotary.params, [prompt], [GenerationOptions(**settings)])


def test_values_a_row_may_be_any_array(rotary):
    prompts = ragged([4, 7], vocab_size=19)
    expected = tokens(rotary, prompts, 9, temperature=[0.0, 1.5], seed=[0, 1], top_k=[19, 3])
    for temperature in (jnp.asarray([0.0, 1.5]), np.asarray([0.0, 1.5]), (0.0, 1.5)):
        given = {"temperature": temperature, "seed": range(2), "top_k": np.asarray([19, 3])}
        assert tokens(rotary, prompts, 9, **given) == expected
    cold = tokens(rotary, prompts, 9)
    assert tokens(rotary, prompts, 9, temperature=jnp.asarray(0.0), seed=np.asarray(3)) == cold


def test_lists_of_tokens_may_be_given_for_each_row(rotary):
    prompts = ragged([4, 7], vocab_size=19)
    own = {
        "bias": [{3: 2.0}, {4: 2.0}],
        "banned_tokens": [[5, 6, 7, 8, 9], [0, 1, 2]],
        "stop_tokens": np.asarray([[10], [11]]),
        "seed": [1, 1],
    }
    settings = {"temperature": 1.5, "pad_id": -1}
    together = tokens(rotary, prompts, 20, **own, **settings)
    for i, prompt in enumerate(prompts):
        alone = {name: values[i] for name, values in own.items()}
        assert tokens(rotary, [prompt], 20, **alone, **settings) == together[i : i + 1]


def test_a_stop_token_that_no_vocabulary_has_bans_none(rotary):
    prompts = ragged([4, 7], vocab_size=19)
    settings = {"temperature": 1.0, "min_new_tokens": 30}
    assert tokens(rotary, prompts, 30, **settings, stop_tokens=[-1, 19]) == tokens(
        rotary, prompts, 30, **settings
    )


def test_an_n_gram_longer_than_any_text_bans_nothing_and_costs_nothing(rotary):
    prompts = ragged([4], vocab_size=19)
    assert tokens(rotary, prompts, 9, no_repeat_ngram=2**31 - 1) == tokens(rotary, prompts, 9)


def test_weights_of_numpy_may_change_between_two_calls():
    model, variables = tiny_model("learned", max_seq_len=32)
    params = jax.tree.map(np.array, variables["params"])
    prompt = {"ids": np.asarray([[1, 2, 3]]), "max_new_tokens": 9, "temperature": 0.0}
    before = generate_tokens(model, params, **prompt)
    table = params["backbone"]["embed"]["tokens"]
    table[:] = np.roll(table, 1, axis=0)
    after = generate_tokens(model, params, **prompt)
    expected = generate_tokens(model, jax.tree.map(jnp.array, params), **prompt)
    np.testing.assert_array_equal(after, expected)
    assert not np.array_equal(before, after)
