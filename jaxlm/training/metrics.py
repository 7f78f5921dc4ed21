"""Numbers derived from losses and times: evaluation over a split, utilisation, rows of metrics."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxlm.config import ModelConfig
from jaxlm.training.objectives import Objective, Params, Sums

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


@jax.jit(static_argnums=(0, 1))
def eval_step(objective: Objective, model: nn.Module, params: Params, batch: Mapping) -> Sums:
    """The objective's sums over one batch, without randomness."""
    return objective(model, params, batch, None)


def evaluate(
    objective: Objective, model: nn.Module, params: Params, batches: Iterable[Mapping]
) -> dict[str, float]:
    """Means over every target of the batches: loss in nats, and what else the objective sums.

    Sums are added up in float64 on the host, so the batch size changes nothing that matters.
    """
    totals: dict[str, float] = {}
    pending = [eval_step(objective, model, params, batch) for batch in batches]
    for sums in jax.device_get(pending):
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    count = totals.pop("count")
    return {name: total / count for name, total in totals.items()}


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


def perplexity(loss: float) -> float:
    """exp(loss), kept finite for a loss that has run away."""
    return math.exp(min(loss, 700.0))


def tree_size(params: Any) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
