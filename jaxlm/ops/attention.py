"""Scaled dot-product attention over grouped heads, and the boolean masks it takes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.ops.attention_kernels import (
    cudnn_attention,
    cudnn_takes,
    splash_attention,
    splash_takes,
)
from jaxlm.ops.random import dropout

# What a model can attend by: a function with the arguments and the shapes of `attention`.
AttentionFunction = Callable[..., Float[Array, "B K G T H"]]

MASKED = -1e30  # finite, so that a query with nothing to attend to gets no NaN


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Segments:
    """A mask by numbers: a query may attend to the keys that have its own.

    Kernels that take no boolean mask take this one, for packed rows and for padding alike.
    """

    query: Int[Array, "B #T"]
    key: Int[Array, "B S"]

    @property
    def mask(self) -> Bool[Array, "B #T S"]:
        """The mask as booleans."""
        return segment_mask(self.query, self.key)


def as_array(mask: "Array | Segments | None") -> "Bool[Array, '#B #T S'] | None":
    """The mask as booleans."""
    return mask.mask if isinstance(mask, Segments) else mask


def attention(
    query: Float[Array, "B K G T H"],
    key: Float[Array, "B K S H"],
    value: Float[Array, "B K S H"],
    mask: "Bool[Array, '#B #T S'] | Segments | None" = None,
    *,
    causal: bool = False,
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
    bias: Float[Array, "#B N T S"] | None = None,
    tap: Callable[[str, Array], Array] | None = None,
) -> Float[Array, "B K G T H"]:
    """Softmax attention of grouped query heads (Vaswani et al. 2017; Ainslie et al. 2023).

    `mask` is True where a query may attend and applies on top of `causal`, with which query t
    sees the keys up to t. A `bias` is added to the scores of each of the N = K G heads. Scores and
    softmax are in fp32; dropout of the probabilities needs a `dropout_key`. `tap(name, x) -> x`
    sees the masked "scores" and the probabilities as "weights", both (B, K, G, T, S), and may
    return others in their place.

    In bfloat16 and without bias, dropout and tap, a fused kernel takes its place on devices that
    have one for these shapes; which device that is, is known when the program is compiled.
    """
    if bias is None and dropout_key is None and tap is None:
        kernels = kernels_for(query, key, mask)
        if kernels:
            inputs = query, key, value, mask
            branches = {name: partial(kernel, causal=causal) for name, kernel in kernels.items()}
            plain = partial(plain_attention, causal=causal)
            return jax.lax.platform_dependent(*inputs, **branches, default=plain)
    return plain_attention(
        query,
        key,
        value,
        mask,
        causal=causal,
        dropout_rate=dropout_rate,
        dropout_key=dropout_key,
        bias=bias,
        tap=tap,
    )


def kernels_for(query: Array, key: Array, mask: "Array | Segments | None") -> dict[str, Any]:
    """The fused kernels that take such heads and such a mask, by the platform they run on."""
    kernels = {}
    # A decoding step has too little to compute for a kernel to pay.
    if query.dtype != jnp.bfloat16 or query.shape[-2] == 1:
        return kernels
    if cudnn_takes(query, key):
        kernels["cuda"] = lambda q, k, v, mask, **options: cudnn_attention(
            q, k, v, as_array(mask), **options
        )
    if splash_takes(query, key) and not isinstance(mask, jax.Array):
        kernels["tpu"] = lambda q, k, v, mask, **options: splash_attention(
            q, k, v, None if mask is None else (mask.query, mask.key), **options
        )
    return kernels


def plain_attention(
    query: Float[Array, "B K G T H"],
    key: Float[Array, "B K S H"],
    value: Float[Array, "B K S H"],
    mask: "Bool[Array, '#B #T S'] | Segments | None",
    *,
    causal: bool,
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
    bias: Float[Array, "#B N T S"] | None = None,
    tap: Callable[[str, Array], Array] | None = None,
) -> Float[Array, "B K G T H"]:
    """`attention` in jax.numpy, on any device."""
    T, S = query.shape[-2], key.shape[-2]
    mask = as_array(mask)
    # A block of queries needs no keys after its last query: with four blocks 5/8 of the scores
    # remain, and on a CPU forward and backward take half the time.
    num_blocks = 4 if causal and T == S and T % 4 == 0 and T >= 128 else 1
    size, blocks = T // num_blocks, []
    for i in range(num_blocks):
        rows = slice(i * size, (i + 1) * size)
        num_keys = (i + 1) * size if num_blocks > 1 else S
        allowed = causal_mask(size, num_keys, i * size)[None] if causal else None
        if mask is not None:
            part = mask[:, rows if mask.shape[1] > 1 else slice(None), :num_keys]
            allowed = part if allowed is None else part & allowed
        scores = masked_scores(
            query[..., rows, :],
            key[..., :num_keys, :],
            allowed,
            None if bias is None else bias[:, :, rows, :num_keys],
        )
        blocks.append(scores)
    blocks = tapped_blocks(tap, "scores", blocks, S, MASKED)
    blocks = [jax.nn.softmax(scores, axis=-1) for scores in blocks]
    blocks = tapped_blocks(tap, "weights", blocks, S, 0.0)
    outputs = []
    for i, weights in enumerate(blocks):
        if dropout_key is not None:
            weights = dropout(weights, dropout_rate, jax.random.fold_in(dropout_key, i))
        seen = value[..., : weights.shape[-1], :]
        outputs.append(jnp.einsum("bkgts,bksh->bkgth", weights.astype(value.dtype), seen))
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-2)


def masked_scores(
    query: Float[Array, "B K G T H"],
    key: Float[Array, "B K S H"],
    mask: Bool[Array, "#B #T S"] | None,
    bias: Float[Array, "#B N T S"] | None,
) -> Float[Array, "B K G T S"]:
    """Scaled products of queries and keys in fp32, MASKED where a query may not attend."""
    query = query * query.shape[-1] ** -0.5
    if query.shape[-2] == 1:
        # Keys first: otherwise XLA transposes them in every decoding step.
        scores = jnp.einsum("bksh,bkgth->bksgt", key, query, preferred_element_type=jnp.float32)
        scores = jnp.moveaxis(scores, 2, -1)
    else:
        scores = jnp.einsum("bkgth,bksh->bkgts", query, key, preferred_element_type=jnp.float32)
    if bias is not None:
        scores += bias.reshape(-1, *scores.shape[1:])
    return scores if mask is None else jnp.where(mask[:, None, None], scores, MASKED)


def tapped_blocks(
    tap: Callable[[str, Array], Array] | None,
    name: str,
    blocks: list[Array],
    num_keys: int,
    unseen: float,
) -> list[Array]:
    """What the tap makes of blocks of queries, which it sees as one array (..., T, S).

    Where it returns the very array, the blocks are used as they are: watching changes nothing.
    `unseen` stands at the keys that a block leaves out.
    """
    if tap is None:
        return blocks

    def widened(block: Array) -> Array:
        missing = num_keys - block.shape[-1]
        pads = [(0, 0)] * (block.ndim - 1) + [(0, missing)]
        return jnp.pad(block, pads, constant_values=unseen) if missing else block

    whole = blocks[0] if len(blocks) == 1 else jnp.concatenate([*map(widened, blocks)], axis=-2)
    edited = tap(name, whole)
    return blocks if edited is whole else [edited]


def causal_mask(num_queries: int, num_keys: int, first: int = 0) -> Bool[Array, "T S"]:
    """True where key s is at or before position first + t, that of query t."""
    return jnp.arange(num_keys) <= first + jnp.arange(num_queries)[:, None]


def position_mask(positions: Int[Array, "B T"], num_slots: int) -> Bool[Array, "B T S"]:
    """True where a cache slot is at or before the query's position; slot s holds position s."""
    return jnp.arange(num_slots) <= positions[:, :, None]


def segment_mask(query: Int[Array, "B #T"], key: Int[Array, "B S"]) -> Bool[Array, "B #T S"]:
    """True where query and key belong to the same segment of a packed row."""
    return query[:, :, None] == key[:, None, :]
