"""Muon: momentum whose matrices are orthogonalised, all of one shape together (Jordan 2024)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

# Quintic a x + b x^3 + c x^5, applied to singular values five times: it drives them near 1 rather
# than to it, which trains as well and takes fewer products (Jordan 2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class MuonState(NamedTuple):
    momentum: Any


def scale_by_muon(decay: float) -> optax.GradientTransformation:
    """Nesterov momentum, orthogonalised, times sqrt(max(1, fan_out / fan_in)).

    Every leaf must be a matrix (in, out).
    """

    def init(params: Any) -> MuonState:
        return MuonState(jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, MuonState]:
        momentum = jax.tree.map(lambda m, g: decay * m + g, state.momentum, updates)
        ahead = jax.tree.map(lambda m, g: decay * m + g, momentum, updates)
        leaves, structure = jax.tree.flatten(ahead)
        return structure.unflatten(orthogonal_updates(leaves)), MuonState(momentum)

    return optax.GradientTransformation(init, update)


def orthogonal_updates(leaves: list[Array]) -> list[Array]:
    """Each matrix orthogonalised and scaled; one batched iteration serves all of a shape.

    Batching keeps the compiled program small and its products large: with one iteration a leaf,
    compiling a four-layer model takes twice as long.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for i, leaf in enumerate(leaves):
        groups.setdefault((min(leaf.shape), max(leaf.shape)), []).append(i)
    updates = list(leaves)
    for members in groups.values():
        wide = [leaves[i] if is_wide(leaves[i]) else leaves[i].T for i in members]
        for i, matrix in zip(members, orthogonalise(jnp.stack(wide)), strict=True):
            fan_in, fan_out = leaves[i].shape
            matrix = matrix if is_wide(leaves[i]) else matrix.T
            updates[i] = matrix * max(1.0, fan_out / fan_in) ** 0.5
    return updates


def is_wide(matrix: Array) -> bool:
    return matrix.shape[0] <= matrix.shape[1]


def orthogonalise(x: Float[Array, "N R C"]) -> Float[Array, "N R C"]:
    """Matrices (R <= C) with the same singular vectors and singular values near 1."""
    a, b, c = COEFFICIENTS
    x = x / (jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + 1e-7)

    def iterate(_: Any, x: Array) -> Array:
        gram = jnp.einsum("nrc,nsc->nrs", x, x)
        return a * x + (b * gram + c * gram @ gram) @ x

    return jax.lax.fori_loop(0, ITERATIONS, iterate, x)
