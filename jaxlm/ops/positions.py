"""Rotary and sinusoidal positions."""

import jax.numpy as jnp
import numpy as np
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


def relative_buckets(
    query: Int[Array, "#B T"],
    key: Int[Array, "#B S"],
    num_buckets: int,
    max_distance: int,
    bidirectional: bool,
) -> Int[Array, "B T S"]:
    """The bucket of each key's distance to each query (Raffel et al. 2020).

    Half of them are for one distance each, the others for ever more up to `max_distance`. With
    `bidirectional` half of all are for later keys, else these fall into the first.
    """
    distance = key[:, None, :] - query[:, :, None]
    if not bidirectional:
        return distance_table(num_buckets, max_distance)[jnp.clip(-distance, 0, max_distance)]
    half = num_buckets // 2
    buckets = distance_table(half, max_distance)[jnp.minimum(jnp.abs(distance), max_distance)]
    return buckets + half * (distance > 0)


def distance_table(num_buckets: int, max_distance: int) -> Int[Array, " n"]:
    """The bucket of each distance from 0 to the largest, of so many in one direction."""
    exact = num_buckets // 2
    # In NumPy's fp32: another logarithm could put a distance on the other side of a border.
    distances = np.arange(max_distance + 1, dtype=np.float32)
    far = np.log(np.maximum(distances, exact) / exact) / np.float32(np.log(max_distance / exact))
    buckets = exact + (far * np.float32(num_buckets - exact)).astype(np.int32)
    table = np.where(distances < exact, distances, np.minimum(buckets, num_buckets - 1))
    return jnp.asarray(table, jnp.int32)


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
