"""What training has changed: an adapter's matrices, weights before and after, a run's course."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from jaxlm.artifact import Loaded
from jaxlm.checkpoint import saved_steps
from jaxlm.inspection.naming import InspectionError
from jaxlm.models.parameters import adapter_paths, is_kernel


class Change(NamedTuple):
    """How one matrix differs from what it was."""

    size: float  # Frobenius norm of the difference
    relative: float  # as a share of the matrix's own norm before
    singular_values: Float[Array, " r"]  # of the difference, largest first
    effective_rank: float  # exp of the entropy of their shares (Roy and Vetterli 2007)


def change_of(before: Float[Array, "I O"], difference: Float[Array, "I O"]) -> Change:
    """A matrix's change, by its singular values."""
    values = jnp.linalg.svd(difference, compute_uv=False)
    shares = values / jnp.maximum(values.sum(), 1e-30)
    entropy = -(shares * jnp.log(jnp.maximum(shares, 1e-30))).sum()
    size = float(jnp.linalg.norm(difference))
    relative = size / max(float(jnp.linalg.norm(before)), 1e-30)
    return Change(size, relative, values, float(jnp.exp(entropy)) if size else 0.0)


def adapter_changes(params: Mapping[str, Any]) -> dict[str, Change]:
    """What each low-rank adapter (Hu et al. 2021) adds to its kernel, by the kernel's path.

    Raises: InspectionError for params without adapters: `jaxlm.load` merges them into the kernels,
    which `weight_changes` compares with the model that tuning started from.
    """
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    found = {}
    for path in filter(is_kernel, leaves):
        names = adapter_paths(path)
        if names[0] in leaves:
            a, b, scale = (leaves[name] for name in names)
            change = change_of(leaves[path], scale * a @ b)
            values = change.singular_values[: a.shape[1]]
            found[path] = change._replace(singular_values=values)
    if not found:
        raise InspectionError("these params hold no adapters; weight_changes compares two models")
    return found


def weight_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Change]:
    """How every kernel differs between two models of one shape, such as before and after tuning.

    Raises: InspectionError where a kernel has another shape or is missing.
    """
    old: dict[str, Any] = flatten_dict(before, sep="/")
    new: dict[str, Any] = flatten_dict(after, sep="/")
    found = {}
    for path in filter(is_kernel, old):
        if path not in new or new[path].shape != old[path].shape:
            raise InspectionError(f"the models differ in shape: {path} is not the same in both")
        found[path] = change_of(old[path], new[path] - old[path])
    return found


def checkpoint_curve(
    run: str | Path, reading: Callable[[Loaded], Any], load: Callable[..., Loaded]
) -> dict[int, Any]:
    """A reading of every checkpoint of a run, by step, in order.

    `reading` maps a model to what is to be compared; `load` is `jaxlm.load`.

    Raises: InspectionError where the run has no checkpoint.
    """
    steps = sorted(saved_steps(Path(run) / "checkpoints"))
    if not steps:
        raise InspectionError(f"{run} has no checkpoints")
    return {step: reading(load(run, step=step)) for step in steps}
