"""Golden training steps of the reference: AdamW with clipping, decay and ragged weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import OptimConfig
from jaxlm.tasks.causal_lm import causal_lm
from jaxlm.training.optimizers import make_optimizer
from jaxlm.training.state import TrainState, train_step
from tests.fixtures.reference import TRAINED, sources


@pytest.mark.parametrize("source", sources(TRAINED))
def test_training_steps_agree(source):
    load, family = source
    record = load(family)
    optim = OptimConfig(schedule="constant", warmup_steps=0, learning_rate=1e-2)
    tokens, losses = jnp.asarray(record["steps/tokens"]), record["steps/losses"]
    optimizer = make_optimizer(optim, len(losses))
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=record.params,
        opt_state=optimizer.init(record.params),
        key=jax.random.key_data(jax.random.key(0)),
        ema=None,
        model=record.model,
        optimizer=optimizer,
        objective=causal_lm,
    )
    step = jax.jit(train_step)
    for i, loss in enumerate(losses):
        weights = jnp.asarray(record["steps/weights"][i])
        batch = {"ids": tokens[i, :, :-1], "targets": tokens[i, :, 1:], "weights": weights}
        state, metrics = step(state, batch)
        np.testing.assert_allclose(metrics["loss"], loss, atol=1e-5)
        np.testing.assert_allclose(metrics["grad_norm"], record["steps/grad_norms"][i], rtol=1e-4)
