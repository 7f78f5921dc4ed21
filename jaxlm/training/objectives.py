"""What a model is trained for: functions from params and a batch to sums over targets."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxlm.ops.losses import cross_entropy

Params = Any
Batch = Mapping[str, Array | np.ndarray]
Sums = dict[str, Array]
# objective(model, params, batch, key) -> sums over the batch's targets, "loss" (nats) and "count"
# among them; what else it sums is reported as a mean. Without a key it runs deterministically,
# for evaluation.
Objective = Callable[[nn.Module, Params, Batch, Array | None], Sums]


def causal_lm(model: nn.Module, params: Params, batch: Batch, key: Array | None = None) -> Sums:
    """Next-token cross-entropy of `ids` (B, T) against `targets` (B, T), weighted by `weights`."""
    logits: Any = model.apply(
        {"params": params},
        batch["ids"],
        positions=batch.get("positions"),
        segment_ids=batch.get("segment_ids"),
        deterministic=key is None,
        rngs=None if key is None else {"dropout": key},
    )
    targets = jnp.asarray(batch["targets"])
    weights = batch.get("weights", jnp.ones(targets.shape, jnp.float32))
    sums = {"loss": cross_entropy(logits, targets) * weights, "count": weights}
    if key is None:
        sums["accuracy"] = (jnp.argmax(logits, axis=-1) == targets) * weights
    return {name: jnp.sum(value, dtype=jnp.float32) for name, value in sums.items()}


OBJECTIVES: dict[str, Objective] = {"clm": causal_lm}
