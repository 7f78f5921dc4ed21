"""Fused attention kernels: what each one takes, and calls with the shapes of `attention`.

They never hold the scores (B, K, G, T, S): cuDNN's on NVIDIA GPUs, splash attention on TPUs.
"""

import math
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

BLOCK = 512  # of queries and keys that a TPU core works on at once, or their number if it is less
# The axes of a mesh that divide rows and heads, where a kernel is traced under a mesh.
ROW_AXES, HEAD_AXIS = ("data", "fsdp"), "tensor"
LANES = 128  # a TPU's tile: queries and keys must be a multiple of it


def cudnn_takes(query: Array, key: Array, masked: bool) -> bool:
    """Whether cuDNN is installed and takes these heads; the rest is for `jax.numpy`."""
    T, H = query.shape[-2:]
    S = key.shape[-2]
    even = not masked or (T % 2 == 0 and S % 2 == 0)
    return query.dtype == jnp.bfloat16 and H % 8 == 0 and H <= 128 and even and has_cudnn()


@cache
def has_cudnn() -> bool:
    """Whether this process could compile cuDNN's attention, be it for a GPU that is not here."""
    heads = jax.ShapeDtypeStruct((1, 2, 1, 8), jnp.bfloat16)
    try:
        jax.eval_shape(
            lambda x: jax.nn.dot_product_attention(x, x, x, implementation="cudnn"), heads
        )
    except RuntimeError:
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


def traced_mesh() -> AbstractMesh | None:
    """The mesh that a program with divided rows and heads is traced under, if any."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if {*ROW_AXES, HEAD_AXIS} <= set(mesh.axis_names) else None


def splash_takes(query: Array, key: Array) -> bool:
    """Whether splash attention takes these heads; on a mesh, rows have to divide over it."""
    T, S = query.shape[-2], key.shape[-2]
    mesh = traced_mesh()
    if mesh is not None and len(query) % math.prod(mesh.shape[axis] for axis in ROW_AXES):
        return False
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

    B, K, G, T, H = query.shape
    S = key.shape[2]
    # All blocks of one size: the one that divides both numbers.
    block = next(size for size in (BLOCK, BLOCK // 2, LANES) if T % size == S % size == 0)
    seen: Any = masks.CausalMask((T, S)) if causal else masks.FullMask((T, S))
    blocks = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )

    def on_device(query: Array, key: Array, value: Array, ids: Any) -> Array:
        """The rows and kv heads that one device has."""
        rows, kv_heads = query.shape[:2]
        kernel = splash.make_splash_mha_single_device(
            masks.MultiHeadMask([seen] * (kv_heads * G)),
            block_sizes=blocks,
            residual_checkpoint_name="attention",
            interpret=interpret,
        )
        heads = (query * H**-0.5).reshape(rows, kv_heads * G, T, H)
        return jax.vmap(kernel)(heads, key, value, ids).reshape(query.shape)

    ids = None
    if segments is not None:
        ids = splash.SegmentIds(jnp.broadcast_to(segments[0], (B, T)), segments[1])
    mesh = traced_mesh()
    if mesh is None:
        return on_device(query, key, value, ids)
    # XLA does not divide a kernel by itself. Kv heads that do not divide are on every device.
    heads = HEAD_AXIS if K % mesh.shape[HEAD_AXIS] == 0 else None
    divided, by_rows = PartitionSpec(ROW_AXES, heads), PartitionSpec(ROW_AXES)
    specs = divided, divided, divided, by_rows
    return jax.shard_map(on_device, in_specs=specs, out_specs=divided, check_vma=False)(
        query, key, value, ids
    )
