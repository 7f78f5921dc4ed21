"""Direct attribution: the logit as a sum over what embeddings, heads and neurons add."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.artifact import Loaded
from jaxlm.inspection.activations import forward, one_row
from jaxlm.inspection.arguments import Index, check_index
from jaxlm.inspection.lenses import STREAM
from jaxlm.inspection.naming import InspectionError
from jaxlm.models.activations import (
    HIDDEN,
    MIXED,
    layers_of,
    linear_head,
    of_layer,
    output_weights,
    stream_of,
)
from jaxlm.nn.int8 import holds_int8


class Attribution(NamedTuple):
    """How much each part adds to a logit; everything together is `logit`."""

    logit: Float[Array, ""]  # the model's own
    embeddings: Float[Array, ""]  # token and position
    heads: Float[Array, "L N"]
    neurons: Float[Array, "L F"]
    attention_bias: Float[Array, " L"]
    feed_forward_bias: Float[Array, " L"]
    head_bias: Float[Array, ""]  # of the final norm and the head

    @property
    def layers(self) -> Float[Array, "L 2"]:
        """The sums by block: of attention and of the feed-forward, biases among them."""
        attention = self.heads.sum(1) + self.attention_bias
        return jnp.stack([attention, self.neurons.sum(1) + self.feed_forward_bias], axis=1)

    @property
    def total(self) -> Float[Array, ""]:
        """The sum of all parts, equal to `logit` up to rounding."""
        return self.embeddings + self.layers.sum() + self.head_bias


def direct_attribution(
    loaded: Loaded, ids: Any, token: Index, against: Index | None = None, position: Index = -1
) -> Attribution:
    """What each part adds directly to the logit of a token (Elhage et al. 2021).

    The final norm is linear once its scale is taken as it is in this run. With `against` it is
    the difference of two tokens' logits, which a constant added to all logits leaves alone.

    Raises: ConfigError for a model whose logits are no such sum, InspectionError for several rows,
    weights in int8, and a token or a position that is none.
    """
    rows = one_row(loaded, ids)
    config, params = loaded.config.resolved(), loaded.params
    if holds_int8(params):
        raise InspectionError("attribution multiplies weights as they were trained, not in int8")
    head = linear_head(config, params)
    tokens = {"token": token} if against is None else {"token": token, "against": against}
    for name, value in tokens.items():
        check_index(name, value, config.vocab_size)
    check_index("position", position, rows.shape[1], from_end=True)
    capture = (*STREAM, of_layer("*", MIXED), of_layer("*", HIDDEN))
    logits, found = forward(loaded.model, params, rows, capture)
    direction, bias = head.kernel[:, token], head.bias[token]
    logit = logits[0, position, token]
    if against is not None:
        direction = direction - head.kernel[:, against]
        bias = bias - head.bias[against]
        logit = logit - logits[0, position, against]

    stream = [state[0, position].astype(jnp.float32) for state in stream_of(found)]
    centred = config.norm == "layernorm"
    last = stream[-1] - stream[-1].mean() if centred else stream[-1]
    reading = head.scale * direction / jnp.sqrt((last**2).mean() + config.norm_eps)
    # The norm takes the mean off each part, which is the same as to take it off the reading.
    reading = reading - reading.mean() if centred else reading

    mixed = [x[0, :, position] for x in layers_of(found, MIXED)]
    hidden = [x[0, position] for x in layers_of(found, HIDDEN)]
    weights = [output_weights(config, params, i) for i in range(config.num_layers)]
    return Attribution(
        logit=logit,
        embeddings=stream[0] @ reading,
        heads=jnp.stack(
            [(x * (w.heads @ reading)).sum(-1) for x, w in zip(mixed, weights, strict=True)]
        ),
        neurons=jnp.stack(
            [x * (w.neurons @ reading) for x, w in zip(hidden, weights, strict=True)]
        ),
        attention_bias=jnp.stack([w.heads_bias @ reading for w in weights]),
        feed_forward_bias=jnp.stack([w.neurons_bias @ reading for w in weights]),
        head_bias=bias,
    )
