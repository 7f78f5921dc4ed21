"""Loaded: a model with its weights and tokenizer, as loading returns it and everything takes it."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn

from jaxlm.config import ModelConfig
from jaxlm.tokenizer import Tokenizer


@dataclass(frozen=True)
class Loaded:
    """A model, the params to evaluate it with, its tokenizer and its config."""

    model: nn.Module
    params: Any
    tokenizer: Tokenizer
    config: ModelConfig
