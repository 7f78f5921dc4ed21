"""Lenses: what the model would predict if it stopped after a layer."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxlm.artifact import Loaded
from jaxlm.inspection.activations import check_language_model, forward, id_rows
from jaxlm.models.activations import EMBEDDINGS, RESIDUAL, of_layer, stream_of

STREAM = (EMBEDDINGS, of_layer("*", RESIDUAL))  # patterns that capture the residual stream


def read_out(model: Any, states: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    """Logits of residual states, through the final norm where there is one."""
    if model.config.final_norm:
        states = model.backbone.final_norm(states)
    return model.head(states)


def logit_lens(model: Any, params: Any, states: Float[Array, "*n T D"]) -> Float[Array, "*n T V"]:
    """Logits of states of the residual stream, as if each were the last (nostalgebraist 2020).

    Of the last block's states they are the model's own logits.
    """
    rows = states.reshape(-1, *states.shape[-2:])
    logits = model.apply({"params": params}, rows, method=read_out)
    return logits.reshape(*states.shape[:-1], logits.shape[-1])


def residual_stream(
    model: Any, params: Any, ids: Int[Array, "B T"], **keywords: Any
) -> Float[Array, "M B T D"]:
    """The residual stream in M = L + 1 places: the embeddings, then after each block."""
    _, found = forward(model, params, ids, STREAM, **keywords)
    return jnp.stack(stream_of(found))


class TunedLens(NamedTuple):
    """For each place of the stream an affine map on top of the state: x + x @ matrix + bias."""

    matrices: Float[Array, "M D D"]
    biases: Float[Array, "M D"]

    def __call__(self, states: Float[Array, "M B T D"]) -> Float[Array, "M B T D"]:
        """States of all places, as the last block would have them."""
        moved = jnp.einsum("mbtd,mde->mbte", states, self.matrices)
        return states + moved + self.biases[:, None, None]


def tuned_lens_loss(
    lens: TunedLens, model: Any, params: Any, states: Float[Array, "M B T D"]
) -> Float[Array, " M"]:
    """KL divergence in nats of each place's prediction from the model's own, by place."""
    logits = logit_lens(model, params, lens(states))
    final = jax.nn.log_softmax(logit_lens(model, params, states[-1]))
    divergence = (jnp.exp(final) * (final - jax.nn.log_softmax(logits))).sum(-1)
    return divergence.mean((1, 2))


def train_tuned_lens(
    loaded: Loaded,
    ids: Any,
    steps: int = 200,
    learning_rate: float = 3e-3,
    batch_size: int = 16,
    seed: int = 0,
) -> TunedLens:
    """A lens for each layer that says what the last will say (Belrose et al. 2023).

    `ids` (R, T) are rows of text to learn from; the model stays as it is, and the last place's map
    stays the identity.
    """
    check_language_model(loaded)
    rows, model, params = id_rows(loaded, ids), loaded.model, loaded.params
    places, width = loaded.config.num_layers + 1, loaded.config.d_model
    lens = TunedLens(jnp.zeros((places, width, width)), jnp.zeros((places, width)))
    optimizer = optax.adam(optax.linear_schedule(learning_rate, 0.0, steps))
    state = optimizer.init(lens)

    @jax.jit
    def step(lens: TunedLens, state: Any, batch: Array) -> tuple[TunedLens, Any]:
        stream = residual_stream(model, params, batch)
        loss = partial(tuned_lens_loss, model=model, params=params, states=stream)
        gradients = jax.grad(lambda lens: loss(lens).sum())(lens)
        gradients = jax.tree.map(lambda x: x.at[-1].set(0.0), gradients)
        updates, state = optimizer.update(gradients, state)
        new: Any = optax.apply_updates(lens, updates)
        return new, state

    for key in jax.random.split(jax.random.key(seed), steps):
        batch = jax.random.choice(key, len(rows), (min(batch_size, len(rows)),), replace=False)
        lens, state = step(lens, state, rows[batch])
    return lens
