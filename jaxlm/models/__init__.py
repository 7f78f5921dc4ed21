"""Whole models over the shared Block, and the presets that size them."""

from jaxlm.models.decoder import CausalLM, Decoder
from jaxlm.models.presets import PRESETS, num_params, preset

__all__ = ["PRESETS", "CausalLM", "Decoder", "num_params", "preset"]
