"""Whole models over the shared Block, the table of their parameters, and the published sizes."""

from jaxlm.config.presets import PRESETS, preset
from jaxlm.models.autoregressive import AutoregressiveLM, CausalLM, Seq2SeqLM
from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.models.heads import (
    BareModel,
    MaskedLM,
    QuestionAnswerer,
    SequenceClassifier,
    TokenClassifier,
    make_model,
)
from jaxlm.models.parameters import num_params, param_shapes, shapes_by_path
from jaxlm.models.trunk import Decoder, Encoder

__all__ = [
    "PRESETS",
    "AutoregressiveLM",
    "BareModel",
    "CausalLM",
    "Decoder",
    "Encoder",
    "EncoderDecoder",
    "MaskedLM",
    "QuestionAnswerer",
    "Seq2SeqLM",
    "SequenceClassifier",
    "TokenClassifier",
    "make_model",
    "num_params",
    "param_shapes",
    "preset",
    "shapes_by_path",
]
