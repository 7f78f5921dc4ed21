"""Low-rank adapters: two thin matrices beside a kernel, trained in its place (Hu et al. 2021).

`Dense` adds x @ lora_a @ lora_b * lora_scale wherever its params hold them, so a model with
adapters is the same model with more params.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from jaxlm.config import ConfigError
from jaxlm.models.parameters import adapter_paths, is_kernel

Params = Mapping[str, Any]


def add_lora(
    params: Params, rank: int, alpha: float, targets: Sequence[str], key: Array
) -> dict[str, Any]:
    """The params with an adapter beside each kernel in whose path a regex of `targets` is found.

    lora_a (I, rank) starts uniform in +-1/sqrt(I), lora_b (rank, O) at zero, so the model computes
    the same as before; lora_scale is alpha / rank. Raises: ConfigError for a regex found nowhere.
    """
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    kernels = sorted(filter(is_kernel, leaves))
    for target in targets:
        if not any(re.search(target, path) for path in kernels):
            raise ConfigError(
                f"finetune.lora_targets {target!r} is in the path of no kernel; one is {kernels[0]}"
            )
    adapted = [path for path in kernels if any(re.search(target, path) for target in targets)]
    for path, own in zip(adapted, jax.random.split(key, len(adapted)), strict=True):
        size_in, size_out = leaves[path].shape
        bound = size_in**-0.5
        a, b, scale = adapter_paths(path)
        leaves[a] = jax.random.uniform(own, (size_in, rank), jnp.float32, -bound, bound)
        leaves[b] = jnp.zeros((rank, size_out))
        leaves[scale] = jnp.asarray(alpha / rank, jnp.float32)
    return unflatten_dict(leaves, sep="/")


def merge_lora(params: Params) -> dict[str, Any]:
    """The params with every adapter added into its kernel; unchanged where there is none."""
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    for kernel in list(filter(is_kernel, leaves)):
        if adapter_paths(kernel)[0] in leaves:
            a, b, scale = (leaves.pop(path) for path in adapter_paths(kernel))
            leaves[kernel] += scale * jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return unflatten_dict(leaves, sep="/")
