"""What training has changed: an adapter's matrices, weights before and after, a run's course."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from jaxlm.artifact import Loaded
from jaxlm.checkpoint import saved_steps
from jaxlm.inspection.arguments import check_params, in_a_line
from jaxlm.inspection.naming import InspectionError
from jaxlm.models.parameters import adapter_paths, is_kernel
from jaxlm.nn.int8 import holds_int8


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
    leaves, found = leaves_of("params", params), {}
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
    old, new = leaves_of("before", before), leaves_of("after", after)
    found = {}
    for path in filter(is_kernel, {**old, **new}):
        if path not in old or path not in new or new[path].shape != old[path].shape:
            raise InspectionError(f"the models differ in shape: {path} is not the same in both")
        found[path] = change_of(old[path], new[path] - old[path])
    if not found:
        raise InspectionError("these params hold no kernels to compare")
    return found


def leaves_of(name: str, params: Any) -> dict[str, Any]:
    """Every leaf of params by its path. Raises: InspectionError for anything else, and for int8."""
    check_params(name, params)
    if holds_int8(params):
        raise InspectionError(f"{name} must be weights as they were trained, not in int8")
    return flatten_dict(params, sep="/")


def checkpoint_curve(
    run: str | Path, reading: Callable[[Loaded], Any], load: Callable[..., Loaded]
) -> dict[int, Any]:
    """A reading of every checkpoint of a run, by step, in order.

    `reading` maps a model to what is to be compared; `load` is `jaxlm.load`.

    Raises: InspectionError where the run has no checkpoint.
    """
    for name, function in {"reading": reading, "load": load}.items():
        if not callable(function):
            raise InspectionError(f"{name} must be a function, got {in_a_line(function)}")
    if not isinstance(run, str | Path):
        raise InspectionError(f"run must be the directory of a run, got {in_a_line(run)}")
    steps = sorted(saved_steps(Path(run) / "checkpoints"))
    if not steps:
        raise InspectionError(f"{run} has no checkpoints; give the directory of a run")
    return {step: reading(load(run, step=step)) for step in steps}
