"""Readings of single runs: predictions, lenses, direct attribution, heads, saliency."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import JaxlmError
from jaxlm.inspection import (
    attention_maps,
    attention_rollout,
    direct_attribution,
    duplicate_token_score,
    gradient_x_input,
    head_entropy,
    head_scores,
    induction_score,
    integrated_gradients,
    label_target,
    logit_lens,
    next_token_table,
    occlusion,
    previous_token_score,
    repeated_ids,
    residual_stream,
    run,
    text_target,
    token_scores,
    token_target,
    train_tuned_lens,
    tuned_lens_loss,
    value_zeroing,
)
from jaxlm.ops.reductions import cross_entropy
from tests.fixtures.tiny import random_ids
from tests.inspection.models import tiny_loaded

IDS = random_ids(1, 7)


@pytest.fixture(scope="module", params=["learned", "rotary"])
def loaded(request):
    more = {"head_bias": True, "scale_head": True} if request.param == "learned" else {}
    return tiny_loaded(request.param, **more)


@pytest.fixture(scope="module")
def one():
    return tiny_loaded("rotary")


def test_the_next_token_table_is_the_softmax_in_order(loaded):
    logits = run(loaded, IDS)[0][0, -1]
    table = next_token_table(loaded.tokenizer, logits, top=4)
    order = np.argsort(-np.asarray(logits))[:4]
    assert [row.id for row in table] == order.tolist()
    chances = np.asarray(jax.nn.softmax(logits))[order]
    np.testing.assert_allclose([row.probability for row in table], chances, rtol=1e-5)
    assert [row.text for row in table] == [loaded.tokenizer.decode([i]) for i in order.tolist()]


def test_losses_ranks_and_entropies_of_the_tokens_of_a_text(loaded):
    logits = run(loaded, IDS)[0]
    scores = token_scores(logits, IDS)
    np.testing.assert_allclose(scores.loss, cross_entropy(logits[:, :-1], IDS[:, 1:]), atol=1e-5)
    np.testing.assert_allclose(scores.surprise, scores.loss / np.log(2), rtol=1e-6)
    ranks = [np.argsort(-x).tolist().index(i) for x, i in zip(logits[0, :-1], IDS[0, 1:])]  # noqa: B905
    assert scores.rank[0].tolist() == ranks
    even = token_scores(jnp.zeros((3, 19)), jnp.zeros(3, int))
    np.testing.assert_allclose(even.entropy, np.log(19), rtol=1e-6)


def test_the_logit_lens_ends_with_the_models_own_logits(loaded):
    stream = residual_stream(loaded.model, loaded.params, IDS)
    assert stream.shape == (3, 1, 7, 16)
    logits = logit_lens(loaded.model, loaded.params, stream)
    np.testing.assert_allclose(logits[-1], run(loaded, IDS)[0], atol=1e-5)


def test_a_tuned_lens_comes_nearer_to_the_last_layer():
    loaded = tiny_loaded()
    rows = random_ids(12, 7)
    lens = train_tuned_lens(loaded, rows, steps=40, learning_rate=1e-2)
    states = residual_stream(loaded.model, loaded.params, rows)
    plain = jax.tree.map(jnp.zeros_like, lens)
    before, after = (tuned_lens_loss(x, loaded.model, loaded.params, states) for x in (plain, lens))
    assert (after[:-1] < 0.7 * before[:-1]).all()
    np.testing.assert_allclose(after[-1], 0, atol=1e-5)


@pytest.mark.parametrize("against", [None, 5])
def test_direct_attributions_sum_to_the_logit(loaded, against):
    found = direct_attribution(loaded, IDS, 3, against, position=4)
    logits = run(loaded, IDS)[0][0, 4]
    expected = logits[3] - (0 if against is None else logits[5])
    np.testing.assert_allclose(found.total, expected, atol=1e-4)
    assert found.heads.shape == (2, 4)
    assert found.neurons.shape == (2, 28)


def test_a_heads_attribution_is_what_the_logit_loses_without_it():
    # In the last block nothing reads a head but the feed-forward, which is switched off.
    loaded = tiny_loaded("rotary", num_layers=1)
    off = {"layers_0/feed_forward": jnp.zeros_like}
    scale = run(loaded, IDS, "layers_0/residual", off)[1]["layers_0/residual"][0, -1]
    without = off | {"layers_0/attention/mixed": lambda x: x.at[:, 2].set(0)}
    less = run(loaded, IDS, "layers_0/residual", without)[1]["layers_0/residual"][0, -1]
    head = loaded.params["head"] * loaded.params["backbone"]["final_norm"]["scale"][:, None]
    whole = run(loaded, IDS, "layers_0/residual")[1]["layers_0/residual"][0, -1]
    rms = jnp.sqrt((whole**2).mean() + loaded.config.norm_eps)
    expected = ((scale - less) / rms) @ head[:, 3]
    np.testing.assert_allclose(direct_attribution(loaded, IDS, 3).heads[0, 2], expected, atol=1e-4)


def test_attribution_refuses_models_whose_logits_are_no_sum():
    with pytest.raises(JaxlmError, match="pre-norm decoders"):
        direct_attribution(tiny_loaded("sinusoidal"), IDS, 3)


def test_entropy_and_rollout_of_literal_weights():
    even = jnp.full((1, 1, 2, 4), 0.25)
    np.testing.assert_allclose(head_entropy(even), np.log(4), rtol=1e-6)
    np.testing.assert_allclose(head_entropy(jnp.eye(3)), 0, atol=1e-6)
    first = jnp.array([[[[1.0, 0], [1, 0]]]])
    rolled = attention_rollout([first, first])
    np.testing.assert_allclose(rolled[:, 0, 1], [[0.5, 0.5], [0.75, 0.25]])


def test_known_heads_are_told_by_their_weights():
    ids = repeated_ids(50, 5, rows=2)
    assert (ids[:, :5] == ids[:, 5:]).all()
    T = ids.shape[1]
    shift = lambda n: jnp.broadcast_to(jnp.eye(T, k=-n), (2, 1, T, T))  # noqa: E731
    heads = jnp.concatenate([shift(1), shift(5), shift(4)], axis=1)
    np.testing.assert_allclose(previous_token_score(heads), [1, 0, 0], atol=1e-6)
    distinct = jnp.stack([jnp.arange(5), jnp.arange(5) + 9]).repeat(2, 0)[::2]
    ids = jnp.concatenate([distinct, distinct], axis=1)
    np.testing.assert_allclose(duplicate_token_score(heads, ids), [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(induction_score(heads, ids), [0, 0, 1], atol=1e-6)


def test_scores_of_every_head_of_a_model(loaded):
    scores = head_scores(loaded)
    assert {x.shape for x in scores} == {(2, 4)}
    weights = attention_maps(loaded, IDS)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


def test_integrated_gradients_sum_to_the_difference(one):
    target = token_target(3)
    others = random_ids(1, 7, seed=5)
    found = integrated_gradients(one, IDS, target, baseline=others, steps=100)
    expected = target(run(one, IDS)[0]) - target(run(one, others)[0])
    np.testing.assert_allclose(found.sum(), expected, atol=0.01)
    assert abs(expected) > 0.1


def test_gradients_times_input_follow_a_small_change(one):
    target, size = text_target(IDS, 5), 1e-2
    found = gradient_x_input(one, IDS, target)
    larger, smaller = (
        target(run(one, IDS, edit={"embeddings": lambda x, s=s: x.at[:, 2].mul(1 + s)})[0])
        for s in (size, -size)
    )
    np.testing.assert_allclose(found[2], (larger - smaller) / (2 * size), rtol=0.02, atol=1e-3)


def test_occlusion_is_what_the_target_loses(one):
    target = token_target(3, 5)
    found = occlusion(one, IDS, target, replacement=11)
    other = IDS.at[0, 2].set(11)
    expected = target(run(one, IDS)[0]) - target(run(one, other)[0])
    np.testing.assert_allclose(found[2], expected, atol=1e-5)
    np.testing.assert_allclose(found[6], 0, atol=1e-6)  # comes after the position


def test_zeroed_values_reach_later_tokens_alone(one):
    found = value_zeroing(one, IDS)
    assert found.shape == (2, 7, 7)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-4)
    assert (np.triu(found[0], 1) < 1e-4).all()


def test_labels_and_masked_tokens_are_targets_too():
    labels = {"head": "sequence_classification", "labels": ("a", "b", "c")}
    classifier = tiny_loaded(architecture="encoder", **labels)
    target = label_target(1)
    found = occlusion(classifier, IDS, target, replacement=11)
    expected = target(run(classifier, IDS)[0]) - target(run(classifier, IDS.at[0, 2].set(11))[0])
    np.testing.assert_allclose(found[2], expected, atol=1e-5)
    masked = tiny_loaded(architecture="encoder", head="pretraining")
    assert np.abs(gradient_x_input(masked, IDS, token_target(3, 1))).min() > 0
