"""How much a model computes, and how much the devices could."""

from typing import Any

import jax
import numpy as np

from jaxlm.config import ModelConfig

# Dense bf16 peak of one device in FLOP/s, from the vendors' data sheets.
PEAK_FLOPS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}


def flops_per_token(config: ModelConfig, num_params: int, seq_len: int) -> float:
    """Training FLOPs of one token: 6 a parameter, plus attention's products (PaLM, appendix B).

    Position embeddings are looked up, not multiplied; a token table counts only where it is the
    head, or there is none.
    """
    looked_up = config.max_seq_len * config.d_model if config.positions == "learned" else 0
    if not config.tie_embeddings:
        looked_up += config.vocab_size * config.d_model
    attention = 12 * config.num_layers * config.num_heads * config.head_dim * seq_len
    return 6 * (num_params - looked_up) + attention


def peak_flops() -> float | None:
    """Peak FLOP/s of all devices together; None where it is not known, as on a CPU."""
    devices = jax.devices()
    kind = devices[0].device_kind
    return next((p * len(devices) for name, p in PEAK_FLOPS.items() if name in kind), None)


def tree_size(params: Any) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
