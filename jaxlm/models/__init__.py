"""Whole models over the shared Block, the table of their parameters, and the published sizes."""

from jaxlm.config.presets import PRESETS, preset
from jaxlm.models.heads import (
    BareModel,
    CausalLM,
    MaskedLM,
    QuestionAnswerer,
    SequenceClassifier,
    TokenClassifier,
    make_model,
)
from jaxlm.models.parameters import num_params, param_shapes
from jaxlm.models.trunk import Decoder, Encoder

__all__ = [
    "PRESETS",
    "BareModel",
    "CausalLM",
    "Decoder",
    "Encoder",
    "MaskedLM",
    "QuestionAnswerer",
    "SequenceClassifier",
    "TokenClassifier",
    "make_model",
    "num_params",
    "param_shapes",
    "preset",
]
