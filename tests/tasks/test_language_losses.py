"""The losses of language models: in chunks, smoothed, and with the z-loss, each as the formula."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.models import make_model
from jaxlm.tasks.causal_lm import causal_lm
from jaxlm.tasks.chat import reply_losses
from jaxlm.tasks.masked_lm import masked_lm
from jaxlm.tasks.task import RowObjective
from jaxlm.tasks.teacher_forcing import TeacherForcing
from tests.fixtures.tiny import params_of, random_ids, tiny_config

B, T, P = 2, 9, 4
KEY = jax.random.key(1)


def weights_of(*shape):
    weights = np.random.default_rng(0).random(shape).astype(np.float32)
    return {"weights": jnp.asarray(weights)}


def causal_batch():
    tokens = random_ids(B, T + 1)
    return {"ids": tokens[:, :-1], "targets": tokens[:, 1:]} | weights_of(B, T)


def masked_batch():
    places = jnp.asarray([[0, 3, 4, 0], [1, 2, 6, 8]])
    weights = jnp.asarray([[1.0, 1, 1, 0], [1, 1, 1, 1]])
    batch = {"ids": random_ids(B, T), "places": places, "weights": weights}
    return batch | {"targets": random_ids(B, P), "next_sentence": jnp.asarray([0, 1])}


def paired_batch():
    tokens = random_ids(B, T + 1)
    mask = jnp.asarray([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    batch = {"source_ids": random_ids(B, 5), "source_mask": mask}
    return batch | {"target_ids": tokens[:, :-1], "targets": tokens[:, 1:]} | weights_of(B, T)


CASES = {
    "tied": (causal_lm, causal_batch, {}),
    "untied": (causal_lm, causal_batch, {"tie_embeddings": False}),
    "replies": (RowObjective(reply_losses, inputs=(), of_head=True), causal_batch, {}),
    "pairs": (
        TeacherForcing(label_smoothing=0.1),
        paired_batch,
        {"architecture": "encoder_decoder"},
    ),
    "masked": (masked_lm, masked_batch, {"architecture": "encoder", "head": "pretraining"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_chunked_loss_has_the_sums_and_gradients_of_the_whole(case):
    objective, make_batch, overrides = CASES[case]
    batch = make_batch()
    if objective in (causal_lm, masked_lm):
        objective = partial(objective, smoothing=0.1, z_loss=1e-2)
    whole = make_model(tiny_config(**overrides))
    chunked = make_model(tiny_config(**overrides, loss_chunk=4 if case != "masked" else 3))
    inputs = [batch[name] for name in ("ids", "source_ids", "target_ids") if name in batch]
    params = params_of(whole, *inputs)

    def gradient(model):
        def loss(params):
            sums = objective(model, params, batch, KEY)
            return sums["loss"], sums

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    ours, theirs = gradient(chunked), gradient(whole)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6 * max(1, np.abs(y).max()))
    # Evaluation sums the right answers as well.
    ours, theirs = (objective(m, params, batch, None) for m in (chunked, whole))
    assert "accuracy" in ours
    for name, y in theirs.items():
        np.testing.assert_allclose(ours[name], y, rtol=1e-6)


def test_smoothing_and_z_loss_are_of_training_alone():
    model, batch = make_model(tiny_config()), causal_batch()
    params = params_of(model, batch["ids"])
    plain = causal_lm(model, params, batch, KEY)["loss"]
    changed = partial(causal_lm, smoothing=0.1, z_loss=1e-2)
    evaluated = [
        float(objective(model, params, batch)["loss"]) for objective in (causal_lm, changed)
    ]
    assert evaluated[0] == pytest.approx(evaluated[1], rel=1e-6)
    logits = model.apply({"params": params}, batch["ids"])
    log_sums = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, batch["targets"][..., None], -1)[..., 0]
    extra = 0.1 * (chosen - logits.mean(-1)) + 1e-2 * log_sums**2
    expected = plain + (extra * batch["weights"]).sum()
    np.testing.assert_allclose(changed(model, params, batch, KEY)["loss"], expected, rtol=1e-5)
