"""Losses, as sums with their counts so that micro-batches of different sizes add up exactly."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cross_entropy(
    logits: Float[Array, "*batch V"], targets: Int[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Negative log-likelihood of each target in nats, in fp32."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def target_sums(
    logits: Float[Array, "*batch V"],
    targets: Int[Array, "*batch"],
    weights: Float[Array, "*batch"],
    accuracy: bool = True,
) -> dict[str, Float[Array, ""]]:
    """Weighted sums over the targets: `loss` in nats, `count`, and the correct ones (`accuracy`).

    A target counts as correct if it has the largest logit.
    """
    sums = {"loss": cross_entropy(logits, targets) * weights, "count": weights}
    if accuracy:
        sums["accuracy"] = (jnp.argmax(logits, axis=-1) == targets) * weights
    return {name: jnp.sum(value, dtype=jnp.float32) for name, value in sums.items()}
