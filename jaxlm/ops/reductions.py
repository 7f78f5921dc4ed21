"""Norms and losses: reductions over the last dim, in fp32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def layer_norm(
    x: Float[Array, "*batch D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"] | None,
    eps: float,
) -> Float[Array, "*batch D"]:
    """Subtract the mean, divide by the standard deviation, scale and shift (Ba et al. 2016)."""
    x = x.astype(jnp.float32)
    mean = x.mean(-1, keepdims=True)
    # E[x^2] - E[x]^2 takes one pass over x instead of two. In fp32 it is exact enough for
    # activations, but rounding may push the variance of a nearly constant row below zero.
    variance = jnp.maximum((x * x).mean(-1, keepdims=True) - mean * mean, 0)
    y = (x - mean) * jax.lax.rsqrt(variance + eps) * scale
    return y if bias is None else y + bias


def rms_norm(
    x: Float[Array, "*batch D"], scale: Float[Array, " D"], eps: float
) -> Float[Array, "*batch D"]:
    """Divide by the root mean square and scale (Zhang and Sennrich 2019)."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + eps) * scale


def cross_entropy(
    logits: Float[Array, "*batch V"],
    targets: Int[Array, "*batch"],
    smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Float[Array, "*batch"]:
    """Negative log-likelihood of each target in nats, in fp32.

    With `smoothing` e the target is right with weight 1 - e, and every token of the vocabulary with
    e / V (Szegedy et al. 2016). `z_loss` times the squared log of the softmax's denominator is
    added, which keeps logits from drifting (Chowdhery et al. 2022). It is NaN for a target that is
    no token.
    """
    logits = logits.astype(jnp.float32)
    # Not a lookup, whose gradient would be a scatter into an array of the size of the logits.
    is_target = jnp.arange(logits.shape[-1]) == targets[..., None]
    chosen = jnp.where(is_target, logits, 0).sum(axis=-1)
    is_token = (targets >= 0) & (targets < logits.shape[-1])
    chosen = jnp.where(is_token, chosen, jnp.nan)
    if smoothing:
        chosen = (1 - smoothing) * chosen + smoothing * logits.mean(axis=-1)
    log_sum = jax.nn.logsumexp(logits, axis=-1)
    losses = log_sum - chosen
    return losses + z_loss * log_sum**2 if z_loss else losses


def target_sums(
    logits: Float[Array, "*batch V"],
    targets: Int[Array, "*batch"],
    weights: Float[Array, "*batch"],
    accuracy: bool = True,
    smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> dict[str, Float[Array, ""]]:
    """Weighted sums over the targets: `loss` in nats, `count`, and the correct ones (`accuracy`).

    A target counts as correct if it has the largest logit, and not at all if its weight is 0.
    `smoothing` and `z_loss` are those of `cross_entropy`.
    """
    losses = cross_entropy(logits, targets, smoothing, z_loss)
    sums = {"loss": jnp.where(weights == 0, 0, losses * weights), "count": weights}
    if accuracy:
        sums["accuracy"] = (jnp.argmax(logits, axis=-1) == targets) * weights
    return {name: jnp.sum(value, dtype=jnp.float32) for name, value in sums.items()}
