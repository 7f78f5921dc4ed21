"""The matrix products of dense layers and heads, and weights in int8 in place of floats."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8

LARGEST = 127  # -128 is left out, so that both signs reach equally far


@flax.struct.dataclass
class Int8Matrix:
    """A matrix with one row an output: integers from -127 to 127, and one scale a row.

    qwix stores the same numbers, but converts the weights to fp32 in every product with fp32
    activations: for GPT-2 124M on a CPU 494 MB of copies, and 7 times the time of a decoding step.
    """

    values: Int8[Array, "O I"]
    scales: Float[Array, " O"]

    @classmethod
    def of(cls, matrix: Float[Array, "O I"]) -> "Int8Matrix":
        """Round each row to integers, its largest magnitude to 127."""
        values, scales = rounded_rows(matrix.astype(jnp.float32))
        return cls(values.astype(jnp.int8), scales[:, 0])

    def __getitem__(self, rows: Int[Array, "*n"]) -> Float[Array, "*n I"]:
        """Rows of the matrix in fp32, as an embedding lookup needs them."""
        return self.values[rows] * self.scales[rows][..., None]

    def product(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:
        """x times the transposed matrix, in fp32.

        Each row of x is split into two int8 digits, the second for the remainder of the first, so
        that rounding the activations costs next to nothing. Integer sums are exact up to
        I = 133,000. Two digits also mean that a product never has a single row, for which XLA's
        CPU backend would convert the matrix to int32.
        """
        rows = x.astype(jnp.float32).reshape(-1, x.shape[-1])
        high, scales = rounded_rows(rows)
        low = jnp.round((rows / scales - high) * (2 * LARGEST))
        digits = jnp.concatenate([high, low]).astype(jnp.int8)
        sums = jax.lax.dot_general(
            digits, self.values, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32
        )
        high, low = jnp.split(sums.astype(jnp.float32), 2)
        y = (high + low / (2 * LARGEST)) * scales * self.scales
        return y.reshape(*x.shape[:-1], len(self.scales))


def rounded_rows(rows: Float[Array, "R I"]) -> tuple[Float[Array, "R I"], Float[Array, "R 1"]]:
    """Each row as integers from -127 to 127 (in fp32), and the scale to multiply them by."""
    # Rows of zeros need a scale above zero, too.
    scales = jnp.maximum(jnp.max(jnp.abs(rows), axis=1, keepdims=True), 1e-30) / LARGEST
    return jnp.round(rows / scales), scales


def holds_int8(params: Any) -> bool:
    """Whether any of the params is an Int8Matrix."""
    leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, Int8Matrix))
    return any(isinstance(leaf, Int8Matrix) for leaf in leaves)


def weight(
    module: nn.Module, name: str, init: Callable[..., Array], shape: tuple[int, int]
) -> Array | Int8Matrix:
    """A matrix of a module's params, or the Int8Matrix in its place, which `param` would refuse."""
    given = module.get_variable("params", name)
    return given if isinstance(given, Int8Matrix) else module.param(name, init, shape)


def matmul(
    x: Float[Array, "*batch I"], kernel: Float[Array, "I O"] | Int8Matrix, dtype: Any
) -> Float[Array, "*batch O"]:
    """x @ kernel, the kernel cast to the type of x, in `dtype`. (An einsum traces half as fast.)"""
    if isinstance(kernel, Int8Matrix):
        return kernel.product(x).astype(dtype)
    if x.dtype != dtype:
        return wide_product(x, kernel, 0).astype(dtype)
    # As rows of a matrix: XLA's CPU backward of a 3-D product is slower.
    rows = x.reshape(-1, x.shape[-1])
    y = jnp.matmul(rows, kernel.astype(x.dtype), preferred_element_type=dtype)
    return y.reshape(*x.shape[:-1], kernel.shape[1])


def matmul_to_heads(
    x: Float[Array, "B T I"],
    kernel: Float[Array, "I NH"] | Int8Matrix,
    dtype: Any,
    *,
    head_dim: int,
) -> Float[Array, "B N T H"]:
    """`matmul` with a result in heads.

    In bfloat16 they are dims of the product itself: around a fused attention kernel, which takes
    that type alone, a TPU copies a result whose dims are moved behind the product. In fp32 they
    are moved: a step of training takes a CPU a fifth longer with them in the product.
    """
    if isinstance(kernel, Int8Matrix) or x.dtype != jnp.bfloat16:
        y = matmul(x, kernel, dtype)
        return y.reshape(*y.shape[:2], -1, head_dim).swapaxes(1, 2)
    split = kernel.astype(x.dtype).reshape(x.shape[-1], -1, head_dim)
    return jnp.einsum("bti,inh->bnth", x, split, preferred_element_type=dtype)


def matmul_from_heads(
    x: Float[Array, "B N T H"], kernel: Float[Array, "NH O"] | Int8Matrix, dtype: Any
) -> Float[Array, "B T O"]:
    """`matmul` of what is in heads; see `matmul_to_heads`."""
    B, N, T, H = x.shape
    if isinstance(kernel, Int8Matrix) or x.dtype != jnp.bfloat16:
        return matmul(x.swapaxes(1, 2).reshape(B, T, N * H), kernel, dtype)
    split = kernel.astype(x.dtype).reshape(N, H, -1)
    return jnp.einsum("bnth,nho->bto", x, split, preferred_element_type=dtype)


def matmul_transposed(
    x: Float[Array, "*batch I"], table: Float[Array, "O I"] | Int8Matrix, dtype: Any
) -> Float[Array, "*batch O"]:
    """x @ table.T, with the table cast to the type of x and a result of `dtype`."""
    if isinstance(table, Int8Matrix):
        return table.product(x).astype(dtype)
    if x.dtype != dtype:
        return wide_product(x, table, 1).astype(dtype)
    rows = x.reshape(-1, x.shape[-1])  # as in `matmul`
    y = jnp.einsum("ri,oi->ro", rows, table.astype(x.dtype), preferred_element_type=dtype)
    return y.reshape(*x.shape[:-1], len(table))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def wide_product(
    x: Float[Array, "*batch I"], matrix: Float[Array, "rows columns"], axis: int
) -> Float[Array, "*batch O"]:
    """x times the matrix along its dim `axis`: factors in the type of x, the result in fp32.

    So are its gradients. JAX would multiply fp32 gradients of logits in fp32, which takes a GPU
    several times as long.
    """
    along = ((x.ndim - 1,), (axis,)), ((), ())
    return jax.lax.dot_general(x, matrix.astype(x.dtype), along, preferred_element_type=jnp.float32)


def product_and_factors(x: Array, matrix: Array, axis: int) -> tuple[Array, tuple[Array, Array]]:
    return wide_product(x, matrix, axis), (x, matrix)


def product_gradients(axis: int, factors: tuple[Array, Array], gradient: Array) -> Any:
    x, matrix = factors
    gradient, batch = gradient.astype(x.dtype), tuple(range(x.ndim - 1))
    along = ((x.ndim - 1,), (1 - axis,)), ((), ())
    to_x = jax.lax.dot_general(gradient, matrix.astype(x.dtype), along)
    pair = (gradient, x) if axis else (x, gradient)
    rows = (batch, batch), ((), ())
    return to_x, jax.lax.dot_general(*pair, rows, preferred_element_type=matrix.dtype)


wide_product.defvjp(product_and_factors, product_gradients)
