"""Whole models over the shared Block, and the presets that size them."""

from jaxlm.config.presets import PRESETS, preset
from jaxlm.models.building import make_model, num_params, param_shapes
from jaxlm.models.decoder import CausalLM, Decoder
from jaxlm.models.encoder import Encoder, MaskedLM
from jaxlm.models.heads import BareModel, QuestionAnswerer, SequenceClassifier, TokenClassifier

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
