"""Learning-rate schedules and update rules, Muon among them, and the parameters each rule takes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxlm.config import OptimConfig
from jaxlm.models.parameters import parameter_kinds

Schedule = Callable[[Any], Any]

# Muon's quintic a x + b x^3 + c x^5, applied to singular values five times: it drives them near 1
# rather than to it, which trains as well and takes fewer products (Jordan 2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def make_schedule(config: OptimConfig, steps: int, peak: float) -> Schedule:
    """Learning rate by step: linear warm-up to `peak`, then what the config's schedule says."""
    warmup = min(config.warmup_steps, steps)
    rest = max(steps - warmup, 1)
    end = peak * config.final_fraction
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, config.final_fraction)
    elif config.schedule == "linear":
        after = optax.linear_schedule(peak, end, rest)
    elif config.schedule == "wsd":
        decay = round(config.decay_fraction * steps)
        after = optax.linear_schedule(peak, end, decay, transition_begin=max(rest - decay, 0))
    elif config.schedule == "inverse_sqrt":
        offset = max(warmup, 1)
        return lambda step: peak * jnp.minimum((step + 1) / offset, (offset / (step + 1)) ** 0.5)
    else:
        after = optax.constant_schedule(peak)
    if warmup == 0:
        return after
    # The first update already moves: a rate of zero would waste its batch.
    ramp = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([ramp, after], [warmup])


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Gradient clipping, the update rule, and decoupled weight decay of all but vectors."""
    config = config.resolved()
    schedule = make_schedule(config, steps, config.learning_rate)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(clip, update_rule(config, steps, schedule))


def update_rule(
    config: OptimConfig, steps: int, schedule: Schedule
) -> optax.GradientTransformation:
    """The config's optimizer with its weight decay and learning rate."""
    decay: dict[str, Any] = {"weight_decay": config.weight_decay, "mask": decays}
    adam: dict[str, Any] = {"b1": config.beta1, "b2": config.beta2, "eps": config.eps} | decay
    if config.name == "lion":
        return optax.lion(schedule, b1=config.beta1, b2=config.beta2, **decay)
    if config.name == "adafactor":
        return optax.chain(
            optax.scale_by_factored_rms(),
            optax.clip_by_block_rms(1.0),
            optax.add_decayed_weights(config.weight_decay, decays),
            optax.scale_by_learning_rate(schedule),
        )
    if config.name == "schedule_free":
        base = optax.adamw(schedule, b1=0.0, b2=config.beta2, eps=config.eps, **decay)
        return optax.contrib.schedule_free(base, schedule, b1=config.beta1)
    if config.name == "muon":
        matrices = optax.chain(
            scale_by_muon(config.momentum),
            optax.add_decayed_weights(config.weight_decay),
            optax.scale_by_learning_rate(schedule),
        )
        rest = optax.adamw(make_schedule(config, steps, config.adam_learning_rate), **adam)
        return optax.partition({"muon": matrices, "adam": rest}, muon_or_adam)
    return optax.adamw(schedule, **adam)


def decays(params: Any) -> Any:
    """True for the leaves that weight decay shrinks."""
    return jax.tree.map(lambda kind: kind != "vector", parameter_kinds(params))


def muon_or_adam(params: Any) -> Any:
    """The rule that takes each leaf when the config's optimizer is Muon."""

    def label(kind: str, leaf: Array) -> str:
        return "muon" if kind == "matrix" and leaf.ndim == 2 else "adam"

    return jax.tree.map(label, parameter_kinds(params), params)


class MuonState(NamedTuple):
    momentum: Any


def scale_by_muon(decay: float) -> optax.GradientTransformation:
    """Muon: Nesterov momentum, orthogonalised, times sqrt(max(1, out / in)) (Jordan 2024).

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
    """Each matrix orthogonalised and scaled; matrices of one shape are iterated as one batch.

    This keeps the compiled program small and its products large: matrix by matrix, a four-layer
    model takes twice as long to compile.
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
