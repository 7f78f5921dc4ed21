"""Rotary and sinusoidal positions."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Cosines and sines; B = 1 if all rows have the same positions.
Rotation = tuple[Float[Array, "#B T H2"], Float[Array, "#B T H2"]]


def rotary_frequencies(head_dim: int, theta: float) -> Float[Array, " H2"]:
    """Radians per position in each of the H / 2 planes of a head (Su et al. 2021)."""
    return theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)


def slowed_frequencies(
    frequencies: Float[Array, " H2"], factor: float, low: float, high: float, original_len: int
) -> Float[Array, " H2"]:
    """Frequencies for a context `factor` times the original (Llama 3.1, Dubey et al. 2024).

    Planes that turn at least `high` times within `original_len` positions keep their frequency,
    those that turn at most `low` times have it divided by the factor, and between is a blend.
    """
    turns = original_len * frequencies / (2 * jnp.pi)
    kept = jnp.clip((turns - low) / (high - low), 0, 1)
    return frequencies * (kept + (1 - kept) / factor)


def rotary_angles(positions: Int[Array, "B T"], frequencies: Float[Array, " H2"]) -> Rotation:
    """Cosines and sines of the angle of each position in each plane."""
    angles = positions[:, :, None] * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "B N T H"], rotation: Rotation) -> Float[Array, "B N T H"]:
    """Rotate each plane (i, i + H / 2) of every head by its position's angle, in fp32."""
    cos, sin = (part[:, None] for part in rotation)
    left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)
    return turned.astype(x.dtype)


def sinusoids(
    positions: Int[Array, "B T"], d_model: int, layout: str = "interleaved"
) -> Float[Array, "B T D"]:
    """Sines in even, cosines in odd dims, wavelengths 2 pi to 20,000 pi (Vaswani et al. 2017).

    With the layout "halves" all sines come first (tensor2tensor, Marian).
    """
    planes = jnp.arange((d_model + 1) // 2, dtype=jnp.float32)
    angles = positions[:, :, None] * 10000.0 ** (-2 * planes / d_model)
    if layout == "halves":
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)[:, :, :d_model]
    pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return pairs.reshape(*positions.shape, -1)[:, :, :d_model]
