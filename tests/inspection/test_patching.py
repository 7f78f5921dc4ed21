"""Ablation and patching: exact where nothing is lost, and equal to edits made by hand."""

import numpy as np
import pytest

from jaxlm.inspection import (
    InspectionError,
    ablated,
    ablation_effects,
    logit_difference,
    patching_effects,
    restored,
    run,
    run_generation,
)
from tests.fixtures.tiny import random_ids
from tests.inspection.models import tiny_loaded

CLEAN, CORRUPTED = random_ids(1, 7), random_ids(1, 7, seed=2)
METRIC = logit_difference(3, 5)


@pytest.fixture(scope="module")
def loaded():
    return tiny_loaded("rotary")


@pytest.mark.parametrize("structure", ["learned", "rotary", "sinusoidal"])
@pytest.mark.parametrize("name", ["embeddings", "layers_0/residual", "layers_1/residual"])
def test_the_whole_residual_stream_restores_the_clean_logits_exactly(structure, name):
    loaded = tiny_loaded(structure)
    logits, found = run(loaded, CLEAN, name)
    np.testing.assert_array_equal(run(loaded, CORRUPTED, edit=found)[0], logits)
    assert np.abs(run(loaded, CORRUPTED)[0] - logits).max() > 0.1


def test_effects_of_ablation_are_those_of_edits(loaded):
    for unit, which in (("heads", 3), ("neurons", 9)):
        effects = ablation_effects(loaded, CLEAN, METRIC, unit)
        edit = ablated(loaded, unit, 1, [which])
        expected = METRIC(run(loaded, CLEAN, edit=edit)[0]) - METRIC(run(loaded, CLEAN)[0])
        np.testing.assert_allclose(effects[1, which], expected, atol=1e-5)
    mean = ablation_effects(loaded, CLEAN, METRIC, "heads", mean=True)
    _, found = run(loaded, CLEAN, "layers_0/attention/mixed")
    own = found["layers_0/attention/mixed"][:, 2].mean(1)
    edit = ablated(loaded, "heads", 0, [2], own)
    expected = METRIC(run(loaded, CLEAN, edit=edit)[0]) - METRIC(run(loaded, CLEAN)[0])
    np.testing.assert_allclose(mean[0, 2], expected, atol=1e-5)


def test_patching_shows_where_a_difference_stands(loaded):
    changed = CLEAN.at[0, 2].add(1)
    scores = [METRIC(run(loaded, ids)[0]) for ids in (CLEAN, changed)]
    shares = restored(patching_effects(loaded, CLEAN, changed, METRIC), *scores)
    assert shares.shape == (3, 7)
    np.testing.assert_allclose(shares[0], np.eye(7)[2], atol=1e-4)  # at the token that differs
    np.testing.assert_allclose(shares[2], np.eye(7)[6], atol=1e-4)  # where the metric reads
    heads = patching_effects(loaded, CLEAN, changed, METRIC, "heads")
    mixed = run(loaded, CLEAN, "layers_1/attention/mixed")[1]["layers_1/attention/mixed"]
    edit = {"layers_1/attention/mixed": lambda x: x.at[:, 1].set(mixed[:, 1])}
    np.testing.assert_allclose(heads[1, 1], METRIC(run(loaded, changed, edit=edit)[0]), atol=1e-5)


def test_a_head_is_switched_off_while_generating(loaded):
    edit = ablated(loaded, "heads", 0, [0, 1, 2, 3])
    steps = run_generation(loaded, CLEAN, "layers_0/attention", edit, 2, temperature=0.0)
    for step in steps:
        np.testing.assert_array_equal(step.activations["layers_0/attention"], 0)


def test_wrong_units_and_texts_of_two_lengths_are_told(loaded):
    with pytest.raises(InspectionError, match="heads must be a whole number from 0 to 3, got 4"):
        ablated(loaded, "heads", 0, [4])
    with pytest.raises(InspectionError, match="unit must be one of heads"):
        ablation_effects(loaded, CLEAN, METRIC, "head")
    with pytest.raises(InspectionError, match="7 tokens and the corrupted one 5"):
        patching_effects(loaded, CLEAN, CORRUPTED[:, :5], METRIC)
