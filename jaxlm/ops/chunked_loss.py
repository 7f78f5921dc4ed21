"""The loss of a language model's head without the logits of all positions at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from jaxlm.ops.reductions import target_sums

MOST_LOGITS = 2**26  # held at once unless the caller says otherwise: 256 MB in fp32


def loss_chunk(batch: int, length: int, vocab_size: int, asked: int | None = None) -> int | None:
    """Positions of each row whose logits the loss should hold at once; None for all of them.

    `asked` is the number wanted; None keeps the logits below MOST_LOGITS.
    """
    if asked is None:
        fitting = max(1, MOST_LOGITS // (batch * vocab_size))
        asked = 1 << (fitting.bit_length() - 1)  # a power of two suits every matrix unit
    return None if asked >= length else asked


def chunked_target_sums(
    head: Callable[[Float[Array, "B C D"]], Float[Array, "B C V"]],
    hidden: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    chunk: int,
    **options: Any,
) -> dict[str, Float[Array, ""]]:
    """`target_sums(head(hidden), targets, weights, **options)`, of `chunk` positions at a time.

    Only the gradient of `loss` exists. It is computed together with the loss, chunk by chunk, so
    that neither logits nor their gradients are held for all positions, and none are computed twice.
    `head` may use other arrays, such as parameters, which get their gradients as well.
    """
    parts = jax.tree.map(lambda x: in_chunks(x, chunk), (hidden, targets, weights))
    head, captured = jax.closure_convert(head, parts[0][0])

    def of_part(hidden: Array, captured: list[Array], targets: Array, weights: Array) -> Any:
        sums = target_sums(head(hidden, *captured), targets, weights, **options)
        return sums["loss"], sums

    @jax.custom_vjp
    def total(captured: list[Array], *parts: Array) -> Any:
        return summed(lambda part: (of_part(part[0], captured, *part[1:])[1], None), parts)[0]

    def forward(captured: list[Array], *parts: Array) -> Any:
        gradient = jax.grad(of_part, argnums=(0, 1), has_aux=True)

        def step(part: tuple) -> tuple[Any, Array]:
            (to_hidden, to_captured), sums = gradient(part[0], captured, *part[1:])
            return (sums, to_captured), to_hidden

        (sums, to_captured), to_hidden = summed(step, parts)
        return sums, (to_captured, to_hidden)

    def backward(gradients: Any, cotangents: Any) -> tuple:
        scale = cotangents["loss"]
        scaled = jax.tree.map(lambda x: (scale * x).astype(x.dtype), gradients)
        return *scaled, None, None

    total.defvjp(forward, backward)
    return total(captured, *parts)


def summed(step: Callable[[Any], tuple[Any, Any]], parts: Any) -> tuple[Any, Any]:
    """The sum over the parts of the first result of `step`, and its second results stacked."""

    def add(total: Any, part: Any) -> tuple[Any, Any]:
        found, other = step(part)
        return jax.tree.map(jnp.add, total, found), other

    shapes = jax.eval_shape(step, jax.tree.map(lambda x: x[0], parts))[0]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zeros, parts)


def in_chunks(x: Shaped[Array, "B T *rest"], chunk: int) -> Shaped[Array, "num B C *rest"]:
    """Chunks along the second dim, the last one filled up with zeros."""
    missing = -x.shape[1] % chunk
    if missing:
        x = jnp.pad(x, [(0, 0), (0, missing), *[(0, 0)] * (x.ndim - 2)])
    return jnp.moveaxis(x.reshape(len(x), -1, chunk, *x.shape[2:]), 1, 0)
