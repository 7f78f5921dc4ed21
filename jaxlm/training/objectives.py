"""What a model is trained for: functions from params and a batch to sums over targets."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxlm.config import Config
from jaxlm.config.rules import require
from jaxlm.ops.losses import cross_entropy, target_sums

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
    return target_sums(logits, targets, jnp.asarray(weights), accuracy=key is None)


def masked_lm(model: nn.Module, params: Params, batch: Batch, key: Array | None = None) -> Sums:
    """Cross-entropy of the tokens hidden at `places` (B, P); logits are made there only.

    With `next_sentence` (B,) in the batch, its mean cross-entropy is added to the mean of the rest
    (Devlin et al. 2018).
    """

    def apply(*inputs: Array, method: str, **keywords: Any) -> Array:
        return model.apply({"params": params}, *inputs, method=method, **keywords)  # pyright: ignore

    hidden = apply(
        jnp.asarray(batch["ids"]),
        method="hidden",
        attention_mask=batch.get("attention_mask"),
        token_type_ids=batch.get("token_type_ids"),
        deterministic=key is None,
        rngs=None if key is None else {"dropout": key},
    )
    chosen = jnp.take_along_axis(hidden, jnp.asarray(batch["places"])[:, :, None], axis=1)
    logits = apply(chosen, method="head")
    targets, weights = jnp.asarray(batch["targets"]), jnp.asarray(batch["weights"])
    sums = target_sums(logits, targets, weights, accuracy=key is None)
    if "next_sentence" in batch:
        answers = jnp.asarray(batch["next_sentence"])
        guess = apply(hidden, method="next_sentence")
        # Weighed so that dividing by the count of tokens gives the mean over rows, without those
        # that only fill a batch up.
        shown = jnp.max(weights, axis=1)
        shown *= sums["count"] / jnp.maximum(shown.sum(), 1)
        sums["next_loss"] = (cross_entropy(guess, answers) * shown).sum()
        sums["next_accuracy"] = ((jnp.argmax(guess, axis=-1) == answers) * shown).sum()
        sums["loss"] += sums["next_loss"]
    return sums


OBJECTIVES: dict[str, Objective] = {"clm": causal_lm, "mlm": masked_lm}
# The architecture and the heads that each of them trains.
TRAINS = {"clm": ("decoder", ("lm",)), "mlm": ("encoder", ("lm", "pretraining"))}


def check_objective(config: Config) -> None:
    """Raise ConfigError unless the config's model can be trained for its objective."""
    name, model = config.objective.name, config.model
    architecture, heads = TRAINS[name]
    require(
        model.architecture == architecture and model.head in heads,
        "model.architecture",
        f"{architecture}, with model.head {' or '.join(heads)}, for objective.name {name}",
        f"{model.architecture} with {model.head}",
    )
