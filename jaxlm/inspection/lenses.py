"""Lenses: what the model would predict if it stopped after a layer."""

from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxlm.artifact import Loaded, check_loaded
from jaxlm.config.schema import require
from jaxlm.generation.options import is_number
from jaxlm.inspection.activations import Activations, check_language_model, forward, id_rows
from jaxlm.inspection.arguments import (
    applied,
    as_numbers,
    check_number,
    check_one_trunk,
    in_a_line,
)
from jaxlm.inspection.naming import InspectionError
from jaxlm.models import Seq2SeqLM
from jaxlm.models.activations import EMBEDDINGS, RESIDUAL, of_layer, stream_of

STREAM = (EMBEDDINGS, of_layer("*", RESIDUAL))  # patterns that capture the residual stream


def read_out(model: Any, states: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    """Logits of residual states, through the final norm where there is one."""
    trunk = model.backbone.decoder if isinstance(model, Seq2SeqLM) else model.backbone
    return model.head(trunk.final_norm(states) if model.config.final_norm else states)


def logit_lens(model: Any, params: Any, states: Float[Array, "*n T D"]) -> Float[Array, "*n T V"]:
    """Logits of states of the residual stream, as if each were the last (nostalgebraist 2020).

    Of the last block's states they are the model's own logits. Raises: InspectionError for a model
    that predicts no tokens, and states of another width.
    """
    check_language_model(model)
    check_states(states, model.config.d_model)
    rows = states.reshape(-1, *states.shape[-2:])
    logits = applied(model, params, rows, method=read_out)
    return logits.reshape(*states.shape[:-1], logits.shape[-1])


def check_states(states: Any, width: int) -> None:
    """Raise InspectionError unless it is an array (..., T, D) of states of this width D."""
    array = as_numbers("states", states, "..., T, D")
    if array.shape[-1] != width:
        raise InspectionError(
            f"states must be an array (..., T, D) with D = {width}, got {in_a_line(array)}"
        )


def residual_stream(
    model: Any, params: Any, ids: Int[Array, "B S"], **keywords: Any
) -> Float[Array, "M B T D"]:
    """The residual stream in M = L + 1 places: the embeddings, then after each block.

    Of an encoder-decoder, which reads target_ids (B, T) as well, it is the decoder's.
    """
    if not isinstance(model, Seq2SeqLM):
        return jnp.stack(stream_of(forward(model, params, ids, STREAM, **keywords)[1]))
    names = [f"decoder/{name}" for name in STREAM]
    _, found = forward(model, params, ids, names, **keywords)
    return jnp.stack(stream_of(of_part(found, "decoder")))


def of_part(activations: Activations, part: str) -> Activations:
    """The activations of an encoder-decoder's "encoder" or "decoder", named as of one trunk."""
    start = f"{part}/"
    found = {name: x for name, x in activations.items() if name.startswith(start)}
    return {name.removeprefix(start): x for name, x in found.items()}


class TunedLens(NamedTuple):
    """For each place of the stream an affine map on top of the state: x + x @ matrix + bias."""

    matrices: Float[Array, "M D D"]
    biases: Float[Array, "M D"]

    def __call__(self, states: Float[Array, "M B T D"]) -> Float[Array, "M B T D"]:
        """States of all places, as the last block would have them."""
        check_states(states, self.matrices.shape[-1])
        if len(states) != len(self.matrices):
            raise InspectionError(
                f"the lens has {len(self.matrices)} places, the states have {len(states)}"
            )
        moved = jnp.einsum("mbtd,mde->mbte", states, self.matrices)
        return states + moved + self.biases[:, None, None]


def tuned_lens_loss(
    lens: TunedLens, model: Any, params: Any, states: Float[Array, "M B T D"]
) -> Float[Array, " M"]:
    """KL divergence in nats of each place's prediction from the model's own, by place."""
    if not isinstance(lens, TunedLens):
        raise InspectionError(f"a lens is what train_tuned_lens returns, got {in_a_line(lens)}")
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
    check_loaded(loaded)
    check_language_model(loaded.model)
    check_one_trunk(loaded.model, "train_tuned_lens")
    for name, value in {"steps": steps, "batch_size": batch_size}.items():
        check_number(name, value, 1)
    check_number("seed", seed)
    positive = is_number(learning_rate, Real) and learning_rate > 0
    require(positive, "learning_rate", "a number above 0", learning_rate)
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
