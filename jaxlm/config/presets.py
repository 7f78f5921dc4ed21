"""Published families and sizes as ModelConfig fields."""

import dataclasses
from collections.abc import Mapping

from jaxlm.config.model import ModelConfig
from jaxlm.config.schema import build_section, not_among

GPT2 = {
    "vocab_size": 50257,
    "d_model": 768,
    "num_layers": 12,
    "num_heads": 12,
    "max_seq_len": 1024,
    "norm": "layernorm",
    "positions": "learned",
    "activation": "gelu_tanh",
    "tie_embeddings": True,
}
LLAMA = {
    "vocab_size": 32000,
    "d_model": 4096,
    "num_layers": 32,
    "num_heads": 32,
    "d_ff": 11008,
    "max_seq_len": 4096,
    "norm": "rmsnorm",
    "norm_eps": 1e-5,
    "positions": "rotary",
    "activation": "silu",
    "gated": True,
    "bias": False,
    "tie_embeddings": False,
}
QWEN2 = LLAMA | {
    "vocab_size": 151936,
    "d_model": 896,
    "num_layers": 24,
    "num_heads": 14,
    "num_kv_heads": 2,
    "d_ff": 4864,
    "max_seq_len": 32768,
    "norm_eps": 1e-6,
    "rope_theta": 1e6,
    "qkv_bias": True,
    "tie_embeddings": True,
}
BERT = {
    "architecture": "encoder",
    "vocab_size": 30522,
    "d_model": 768,
    "num_layers": 12,
    "num_heads": 12,
    "max_seq_len": 512,
    "num_token_types": 2,
    "norm": "layernorm",
    "norm_position": "post",
    "norm_eps": 1e-12,
    "embed_norm": True,
    "positions": "learned",
    "activation": "gelu",
    "tie_embeddings": True,
}
# The base model of Vaswani et al. 2017, with the vocabulary of its English-German experiments.
TRANSFORMER = {
    "architecture": "encoder_decoder",
    "vocab_size": 37000,
    "d_model": 512,
    "num_layers": 6,
    "num_heads": 8,
    "d_ff": 2048,
    "max_seq_len": 512,
    "norm": "layernorm",
    "norm_position": "post",
    "positions": "sinusoidal",
    "activation": "relu",
    "scale_embeddings": True,
    "share_embeddings": True,
    "tie_embeddings": True,
    "dropout": 0.1,
}

PRESETS: dict[str, Mapping[str, object]] = {
    "gpt2": GPT2,
    "gpt2_medium": GPT2 | {"d_model": 1024, "num_layers": 24, "num_heads": 16},
    "gpt2_large": GPT2 | {"d_model": 1280, "num_layers": 36, "num_heads": 20},
    "gpt2_xl": GPT2 | {"d_model": 1600, "num_layers": 48, "num_heads": 25},
    "llama": LLAMA,
    "qwen2": QWEN2,
    "bert_base": BERT,
    "bert_large": BERT | {"d_model": 1024, "num_layers": 24, "num_heads": 16},
    "transformer": TRANSFORMER,
}


def expand_preset(fields: Mapping[str, object]) -> dict[str, object]:
    """The given fields over those of the preset that they name, if any.

    A run's recorded config holds every field, so its preset need not be known here.
    """
    name = fields.get("preset")
    if name is None or all(f.name in fields for f in dataclasses.fields(ModelConfig)):
        return dict(fields)
    if not isinstance(name, str) or name not in PRESETS:
        raise not_among("model.preset", name, PRESETS)
    return {**PRESETS[name], **fields}


def preset(name: str, **overrides: object) -> ModelConfig:
    """The ModelConfig of a named family and size, with fields overridden.

    Raises: ConfigError for an unknown preset or field.
    """
    if not isinstance(name, str):
        raise not_among("model.preset", name, PRESETS)
    return build_section(ModelConfig, expand_preset({"preset": name, **overrides}))
