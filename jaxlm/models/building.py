"""From a config to the model it describes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlm.config import ModelConfig
from jaxlm.models.decoder import CausalLM
from jaxlm.models.encoder import MaskedLM
from jaxlm.models.heads import BareModel, QuestionAnswerer, SequenceClassifier, TokenClassifier

HEADS: dict[str, type[nn.Module]] = {
    "none": BareModel,
    "pretraining": MaskedLM,
    "sequence_classification": SequenceClassifier,
    "token_classification": TokenClassifier,
    "question_answering": QuestionAnswerer,
}


def make_model(config: ModelConfig) -> Any:
    """The module of the config's architecture and head, without parameters."""
    config = config.resolved()
    if config.head == "lm":
        return CausalLM(config) if config.architecture == "decoder" else MaskedLM(config)
    return HEADS[config.head](config)


def param_shapes(config: ModelConfig) -> Any:
    """Shape and type of every parameter, as nested dicts, without allocating them."""
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return jax.eval_shape(make_model(config).init, jax.random.key(0), ids)["params"]


def num_params(config: ModelConfig) -> int:
    """Parameters of the model of this config, counted without allocating them."""
    return sum(leaf.size for leaf in jax.tree.leaves(param_shapes(config)))
