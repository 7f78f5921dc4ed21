"""Norms by layer: those of the step's own trees, on demand, and nothing else changes."""

import jax
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from jaxlm.models.parameters import layer_of
from jaxlm.training import fit
from jaxlm.training.state import accumulated_gradients, train_step
from tests.training.runs import rows, tiny
from tests.training.test_step import language_batch, language_state


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("backbone/layers_11/attention/query/kernel", "layers_11"),
        ("encoder/layers_0/feed_forward/up/bias", "encoder/layers_0"),
        ("encoder/embed/tokens", "encoder/embed"),
        ("final_norm/scale", "final_norm"),
        ("head", "head"),
    ],
)
def test_a_parameter_belongs_to_its_block_or_module(path, layer):
    assert layer_of(path) == layer


def norm_of(tree, layer):
    leaves = [x for path, x in flatten_dict(tree, sep="/").items() if layer_of(path) == layer]
    return np.sqrt(sum(np.sum(np.square(np.asarray(x, np.float64))) for x in leaves))


def test_norms_are_those_of_params_mean_gradients_and_updates():
    state, batch = language_state(optax.sgd(0.5), scan_layers=False), language_batch()
    step = jax.jit(train_step)
    plain, without = step(state, batch)
    logged, metrics = step(state.replace(log_norms=True), batch)
    assert not any("/" in name for name in without)
    key = jax.random.fold_in(state.key, state.step)
    gradients, sums = accumulated_gradients(state, batch, key)
    gradients = jax.tree.map(lambda g: g / sums["count"], gradients)
    names = {layer_of(path) for path in flatten_dict(state.params, sep="/")}
    assert {name for name in metrics if "/" in name} == {
        f"{kind}_norm/{name}" for kind in ("param", "grad", "update") for name in names
    }
    for name in names:
        tree = {"param": state.params, "grad": gradients}
        tree["update"] = jax.tree.map(lambda g: -0.5 * g, gradients)
        for kind, own in tree.items():
            found = metrics[f"{kind}_norm/{name}"]
            np.testing.assert_allclose(found, norm_of(own, name), rtol=1e-4, err_msg=name)
    for ours, theirs in zip(*map(jax.tree.leaves, (plain, logged)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_rows_of_updates_have_them_where_asked(tmp_path):
    train = {"steps": 4, "eval_every": 4, "log_norms": True}
    fit(tiny(tmp_path, train=train, sample={"every": 0}))
    *steps, val = rows(tmp_path / "run")
    assert len(steps) == 2
    assert all(row["update_norm/layers_0"] > 0 for row in steps)
    assert not any("/" in name for name in val)
