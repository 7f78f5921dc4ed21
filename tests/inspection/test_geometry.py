"""Vectors, probes and changes: geometry of embeddings and states, and what training moved."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.inspection import (
    InspectionError,
    adapter_changes,
    analogy,
    checkpoint_curve,
    neighbours,
    principal_components,
    probe_layers,
    states_of_texts,
    weight_changes,
    word_in_contexts,
)
from jaxlm.models.parameters import add_lora, merge_lora
from tests.inspection.models import LETTERS, tiny_loaded


@pytest.fixture(scope="module")
def placed():
    """A model whose first letters have known vectors."""
    loaded = tiny_loaded()
    order = loaded.tokenizer.encode(LETTERS)
    table = 0.05 * jax.random.normal(jax.random.key(0), (19, 16))
    x, y, z = jnp.eye(16)[:3]
    for letter, vector in zip("abcde", (x, x + y, z, z + y, -x), strict=True):
        table = table.at[order[LETTERS.index(letter)]].set(3 * vector)
    backbone = loaded.params["backbone"]
    backbone = backbone | {"embed": backbone["embed"] | {"tokens": table}}
    return dataclasses.replace(loaded, params=loaded.params | {"backbone": backbone})


def test_neighbours_and_arithmetic_in_the_embedding(placed):
    nearest = neighbours(placed, "a", top=3)
    assert nearest[0].text == "b"
    assert nearest[0].similarity == pytest.approx(0.5**0.5, abs=1e-5)
    assert analogy(placed, ["b", "c"], ["a"])[0].text == "d"
    with pytest.raises(InspectionError, match="empty"):
        neighbours(placed, "")


def test_a_word_is_like_itself_and_drifts_apart_in_another_text(placed):
    np.testing.assert_allclose(word_in_contexts(placed, "abc", "abc", "c"), 1, atol=1e-5)
    found = word_in_contexts(placed, "abcdef", "fedcba", "c")
    assert found.shape == (3,)
    assert found[2] < 0.999
    with pytest.raises(InspectionError, match="does not hold the word 'q'"):
        word_in_contexts(placed, "abc", "abc", "q")


def test_principal_components_are_those_of_the_covariance():
    states = jax.random.normal(jax.random.key(1), (40, 6)) * jnp.array([9, 4, 1, 1, 1, 1])
    found = principal_components(states)
    values, vectors = np.linalg.eigh(np.cov(np.asarray(states).T))
    share = values[::-1][:2] / values.sum()
    np.testing.assert_allclose(found.explained, share, rtol=1e-4)
    np.testing.assert_allclose(
        np.abs(found.components @ vectors[:, ::-1][:, :2]), np.eye(2), atol=1e-2
    )
    expected = (states - states.mean(0)) @ found.components.T
    np.testing.assert_allclose(found.coordinates, expected, atol=1e-3)


def test_states_of_texts_do_not_depend_on_their_neighbours(placed):
    both = states_of_texts(placed, ["abc", "abcdefgh"], "last")
    alone = states_of_texts(placed, ["abc"], "last")
    assert both.shape == (3, 2, 16)
    np.testing.assert_allclose(both[:, :1], alone, atol=1e-5)
    with pytest.raises(InspectionError, match="takes 12"):
        states_of_texts(placed, ["abcdefghijklm"])


def test_probes_find_what_is_there_and_not_what_is_shuffled():
    rng = np.random.default_rng(0)
    labels = np.array(["x", "y"])[rng.integers(2, size=120)]
    noise = rng.normal(size=(2, 120, 5))
    noise[1, :, 0] += 6 * (labels == "y")
    scores = probe_layers(noise, labels.tolist())
    assert scores.accuracy[1] > 0.97
    assert scores.accuracy[0] < 0.7
    assert (scores.shuffled < 0.7).all()
    with pytest.raises(InspectionError, match="1 of y"):
        probe_layers(noise[:, :4], ["x", "x", "x", "y"])


def test_what_an_adapter_changed():
    params = tiny_loaded().params
    with pytest.raises(InspectionError, match="no adapters"):
        adapter_changes(params)
    tuned = add_lora(params, 2, 4.0, ["attention/value"], jax.random.key(0))
    random = lambda path, x: jnp.ones_like(x) if "lora_b" in str(path) else x  # noqa: E731
    tuned = jax.tree_util.tree_map_with_path(random, tuned)
    found = adapter_changes(tuned)
    path = "backbone/layers_1/attention/value/kernel"
    assert len(found) == 2
    assert found[path].singular_values.shape == (2,)
    assert found[path].effective_rank == pytest.approx(1.0, abs=1e-2)  # columns all alike
    moved = weight_changes(params, merge_lora(tuned))
    assert moved[path].size == pytest.approx(found[path].size, rel=1e-4)
    assert moved["backbone/layers_0/feed_forward/up/kernel"].size == 0


def test_a_curve_reads_every_checkpoint_in_order(tmp_path, monkeypatch):
    loads = lambda run, step: step  # noqa: E731
    steps = "jaxlm.inspection.changes.saved_steps"
    monkeypatch.setattr(steps, lambda folder: [20, 100])
    assert checkpoint_curve(tmp_path, lambda loaded: loaded + 1, loads) == {20: 21, 100: 101}
    monkeypatch.setattr(steps, lambda folder: [])
    with pytest.raises(InspectionError, match="no checkpoints"):
        checkpoint_curve(tmp_path, str, loads)
