"""Fused attention kernels: what each one takes, and calls with the shapes of `attention`.

They never hold the scores (B, K, G, T, S): cuDNN's on NVIDIA GPUs, splash attention on TPUs.
"""

import ctypes
import math
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

BLOCK = 512  # of queries and keys that a TPU core works on at once, or their number if it is less
CUDNN = "libcudnn.so.9"
ROW_AXES, HEAD_AXIS = ("data", "fsdp"), "tensor"  # mesh axes that rows and heads lie on
LANES = 128  # a TPU's tile: queries and keys must be a multiple of it


def cudnn_takes(query: Array, key: Array) -> bool:
    """Whether cuDNN is installed and takes these heads; the rest is for `jax.numpy`."""
    T, H = query.shape[-2:]
    even = T % 2 == 0 and key.shape[-2] % 2 == 0  # the gradient exists for these alone
    return query.dtype == jnp.bfloat16 and H % 8 == 0 and H <= 128 and even and has_cudnn()


@cache
def has_cudnn() -> bool:
    """Whether this process could compile cuDNN's attention, be it for a GPU that is not here."""
    packages = find_spec("nvidia")
    folders = [] if packages is None else packages.submodule_search_locations or []
    # JAX ends the process if it has its CUDA plugin but no cuDNN, so that is looked for first.
    if not any(loads(f"{f}/cudnn/lib/{CUDNN}") for f in folders) and not loads(CUDNN):
        return False
    heads = jax.ShapeDtypeStruct((1, 2, 1, 8), jnp.bfloat16)
    call = partial(jax.nn.dot_product_attention, implementation="cudnn")
    try:
        jax.eval_shape(call, heads, heads, heads)
    except RuntimeError:
        return False
    return True


def loads(library: str) -> bool:
    """Whether the system can load a shared library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def cudnn_attention(
    query: Float[Array, "B K G T H"],
    key: Float[Array, "B K S H"],
    value: Float[Array, "B K S H"],
    mask: Bool[Array, "#B #T S"] | None,
    *,
    causal: bool,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "B K G T H"]:
    """`attention` by cuDNN; a mask goes in as a bias, which all heads share."""
    B, K, G, T, H = query.shape
    S = key.shape[2]
    # cuDNN does not stretch dims of one.
    mask = None if mask is None else jnp.broadcast_to(mask[:, None], (B, 1, T, S))
    out = jax.nn.dot_product_attention(
        query.transpose(0, 3, 1, 2, 4).reshape(B, T, K * G, H),
        key.swapaxes(1, 2),
        value.swapaxes(1, 2),
        mask=mask,
        is_causal=causal,
        implementation=implementation,
    )
    return out.reshape(B, T, K, G, H).transpose(0, 2, 3, 1, 4)


def splash_takes(query: Array, key: Array) -> bool:
    """Whether splash attention takes these heads."""
    T, S = query.shape[-2], key.shape[-2]
    return query.dtype == jnp.bfloat16 and T % LANES == 0 and S % LANES == 0


def splash_attention(
    query: Float[Array, "B K G T H"],
    key: Float[Array, "B K S H"],
    value: Float[Array, "B K S H"],
    segments: tuple[Int[Array, "B #T"], Int[Array, "B S"]] | None,
    *,
    causal: bool,
    interpret: bool = False,
) -> Float[Array, "B K G T H"]:
    """`attention` by JAX's splash attention; queries see the keys of their own segment.

    `interpret` runs it on any device, slowly, for tests.
    """
    # Importing Pallas takes time that only accelerators' programs need.
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as splash,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    B, _, G, T, H = query.shape
    S = key.shape[2]
    # All blocks of one size: the one that divides both numbers.
    block = next(size for size in (BLOCK, BLOCK // 2, LANES) if T % size == S % size == 0)
    seen: Any = masks.CausalMask((T, S)) if causal else masks.FullMask((T, S))
    names = ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq")
    sizes = splash.BlockSizes(**dict.fromkeys(names, block))
    if segments is not None:
        segments = jnp.broadcast_to(segments[0], (B, T)), segments[1]

    def of_device(query: Array, key: Array, value: Array, segments: Any) -> Any:
        rows, groups = query.shape[:2]
        kernel = splash.make_splash_mha_single_device(
            masks.MultiHeadMask([seen] * (groups * G)),
            block_sizes=sizes,
            residual_checkpoint_name="attention",
            interpret=interpret,
        )
        heads = (query * H**-0.5).reshape(rows, groups * G, T, H)
        ids = None if segments is None else splash.SegmentIds(*segments)
        out: Any = jax.vmap(kernel)(heads, key, value, ids)
        return out.reshape(query.shape)

    return by_device(of_device, query, key, value, segments)


def by_device(
    kernel: Callable[..., Array],
    query: Float[Array, "B K G T H"],
    key: Float[Array, "B K S H"],
    value: Float[Array, "B K S H"],
    segments: Any,
) -> Float[Array, "B K G T H"]:
    """The kernel on the rows and heads that each device of the current mesh has.

    XLA divides no kernel of Pallas among devices by itself. The mesh is that of `jax.set_mesh`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return kernel(query, key, value, segments)
    B, K = query.shape[:2]
    rows = tuple(name for name in ROW_AXES if name in mesh.axis_names)
    rows = rows if B % math.prod(mesh.shape[name] for name in rows) == 0 else ()
    heads = HEAD_AXIS if K % mesh.shape.get(HEAD_AXIS, K + 1) == 0 else None
    by_rows = PartitionSpec(rows or None)
    by_heads = PartitionSpec(rows or None, heads)
    specs = by_heads, by_heads, by_heads, by_rows
    # Which results are alike on several devices, kernels do not tell.
    shared = jax.shard_map(kernel, in_specs=specs, out_specs=by_heads, check_vma=False)
    return shared(query, key, value, segments)
