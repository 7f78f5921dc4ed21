"""The paths of activations, as taps see them, and the weights that readings of a model multiply."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.config import ConfigError, ModelConfig
from jaxlm.models.parameters import merge_lora
from jaxlm.ops.positions import sinusoids

EMBEDDINGS, FINAL = "embeddings", "final"
# Of a block, in the order of its computation.
RESIDUAL_IN = "residual_in"
ATTENTION_NORM = "attention_norm"
QUERY, KEY, VALUE = "attention/query", "attention/key", "attention/value"
SCORES, WEIGHTS, MIXED = "attention/scores", "attention/weights", "attention/mixed"
ATTENTION = "attention"
CROSS_WEIGHTS = "cross_attention/weights"  # of a decoder that reads a source
RESIDUAL_AFTER_ATTENTION = "residual_after_attention"
FEED_FORWARD_NORM = "feed_forward_norm"
HIDDEN, FEED_FORWARD = "feed_forward/hidden", "feed_forward"
RESIDUAL = "residual"
PER_SLOT = (f"/{SCORES}", f"/{WEIGHTS}")  # what ends in a dim of the cache's slots


def of_layer(layer: int | str, name: str) -> str:
    """The path of a block's activation; layer "*" stands for those of every block."""
    return f"layers_{layer}/{name}"


def layers_of(activations: Mapping[str, Any], name: str) -> list[Any]:
    """The activations of this name, one of each block, in order."""
    found, i = [], 0
    while of_layer(i, name) in activations:
        found.append(activations[of_layer(i, name)])
        i += 1
    return found


def stream_of(activations: Mapping[str, Any]) -> list[Any]:
    """The L + 1 states of the residual stream (B, T, D): the embeddings, then after each block."""
    return [activations[EMBEDDINGS], *layers_of(activations, RESIDUAL)]


class OutputWeights(NamedTuple):
    """How a block's parts are written into the residual stream."""

    heads: Float[Array, "N H D"]
    heads_bias: Float[Array, " D"]
    neurons: Float[Array, "F D"]
    neurons_bias: Float[Array, " D"]


def output_weights(config: ModelConfig, params: Mapping[str, Any], layer: int) -> OutputWeights:
    """The output projections of a block, adapters merged; biases are zero where there are none."""
    config = config.resolved()
    block = merge_lora(params)["backbone"][f"layers_{layer}"]
    heads, neurons = block["attention"]["output"], block["feed_forward"]["down"]
    none = jnp.zeros(config.d_model)
    kernel = heads["kernel"].reshape(config.num_heads, config.head_dim, config.d_model)
    return OutputWeights(
        kernel, heads.get("bias", none), neurons["kernel"], neurons.get("bias", none)
    )


def token_vectors(params: Mapping[str, Any]) -> Float[Array, "V D"]:
    """The embedding of every token."""
    return params["backbone"]["embed"]["tokens"]


def position_vectors(
    config: ModelConfig, params: Mapping[str, Any], length: int
) -> Float[Array, "T D"] | None:
    """What the first `length` positions add to token vectors; None for a model that adds nothing.

    Rotary and relative positions enter in the attention of every block.
    """
    config = config.resolved()
    if config.positions == "learned":
        start = config.position_offset
        return params["backbone"]["embed"]["positions"][start : start + length]
    if config.positions == "sinusoidal":
        return sinusoids(jnp.arange(length), config.d_model, config.sinusoid_layout)
    return None


class LinearHead(NamedTuple):
    """What turns a residual stream into logits once the final norm's scale is known."""

    kernel: Float[Array, "D V"]
    scale: Float[Array, " D"]  # of the norm
    bias: Float[Array, " V"]  # what the biases of norm and head add to the logits


def linear_head(config: ModelConfig, params: Mapping[str, Any]) -> LinearHead:
    """The final norm and the unembedding of a pre-norm decoder.

    Raises: ConfigError for another model: its logits are no sum over what its blocks add.
    """
    config = config.resolved()
    kind = config.architecture, config.head, config.norm_position, config.final_norm
    if kind != ("decoder", "lm", "pre", True):
        raise ConfigError(
            "logits are a sum over parts in pre-norm decoders with the head lm alone, but this is "
            f"a {config.norm_position}-norm {config.architecture} with the head {config.head}"
        )
    norm = params["backbone"]["final_norm"]
    kernel = token_vectors(params).T if config.tie_embeddings else params["head"]
    if config.scale_head:
        kernel = kernel * config.d_model**-0.5
    bias = norm.get("bias", jnp.zeros(config.d_model)) @ kernel
    return LinearHead(kernel, norm["scale"], bias + params.get("bias", 0.0))
