"""Low-rank adapters: two thin matrices beside a kernel, learned in its place (Hu et al. 2021).

`Dense` adds x @ lora_a @ lora_b * lora_scale wherever its params hold them, so that a model with
adapters is the same model with more leaves.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from jaxlm.config import ConfigError

Params = Mapping[str, Any]
KERNEL, A, B, SCALE = "/kernel", "/lora_a", "/lora_b", "/lora_scale"


def add_lora(
    params: Params, rank: int, alpha: float, targets: Sequence[str], key: Array
) -> dict[str, Any]:
    """The params with adapters beside each kernel whose path a regex of `targets` finds.

    `lora_a` (I, rank) starts uniform in +-1/sqrt(I) and `lora_b` (rank, O) at zero, so the model
    starts as it was; the scale is alpha / rank. ConfigError for a regex that finds no kernel.
    """
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    kernels = sorted(path for path in leaves if path.endswith(KERNEL))
    for target in targets:
        if not any(re.search(target, path) for path in kernels):
            raise ConfigError(
                f"finetune.lora_targets {target!r} is in the path of no kernel; one is {kernels[0]}"
            )
    adapted = [path for path in kernels if any(re.search(target, path) for target in targets)]
    for path, own in zip(adapted, jax.random.split(key, len(adapted)), strict=True):
        size_in, size_out = leaves[path].shape
        name = path.removesuffix(KERNEL)
        bound = size_in**-0.5
        leaves[name + A] = jax.random.uniform(own, (size_in, rank), jnp.float32, -bound, bound)
        leaves[name + B] = jnp.zeros((rank, size_out))
        leaves[name + SCALE] = jnp.asarray(alpha / rank, jnp.float32)
    return unflatten_dict(leaves, sep="/")


def merge_lora(params: Params) -> dict[str, Any]:
    """The params with every adapter added into its kernel; as they are where there is none."""
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    for name in [path.removesuffix(A) for path in leaves if path.endswith(A)]:
        a, b, scale = (leaves.pop(name + part) for part in (A, B, SCALE))
        leaves[name + KERNEL] += scale * jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return unflatten_dict(leaves, sep="/")


def adapters_of(params: Params) -> dict[str, Array]:
    """The adapters' leaves alone, by path."""
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    return {path: leaf for path, leaf in leaves.items() if path.endswith((A, B, SCALE))}
