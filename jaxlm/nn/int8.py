"""A matrix in a quarter of the memory, and products with it that make no larger copy."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8

DIGIT = 127  # the largest value of a digit; -128 is left out, so that both signs reach as far


@flax.struct.dataclass
class Int8Matrix:
    """A matrix of O rows, one an output, each as whole numbers from -127 to 127 and their scale.

    qwix keeps the same numbers, but turns them into fp32 at every product with activations in
    fp32: for GPT-2 124M on a CPU 494 MB of copies and 7 times the time of a step.
    """

    values: Int8[Array, "O I"]
    scales: Float[Array, " O"]

    @classmethod
    def of(cls, matrix: Float[Array, "O I"]) -> "Int8Matrix":
        """The nearest numbers to each row, whose largest becomes 127 or -127."""
        values, scales = nearest(matrix.astype(jnp.float32))
        return cls(values.astype(jnp.int8), scales[:, 0])

    def __getitem__(self, rows: Int[Array, "*n"]) -> Float[Array, "*n I"]:
        """Rows of the matrix in fp32."""
        return self.values[rows] * self.scales[rows][..., None]

    def product(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:
        """x times the transposed matrix, in fp32.

        Each row of x becomes two digits of eight bits, the second for what the first leaves, so
        that the weights alone are coarse. The sums of whole numbers are exact up to I = 133,000;
        with two digits a product is never that of a single row, which XLA's CPU would do in int32.
        """
        rows = x.astype(jnp.float32).reshape(-1, x.shape[-1])
        high, scales = nearest(rows)
        low = jnp.round((rows / scales - high) * (2 * DIGIT))
        digits = jnp.concatenate([high, low]).astype(jnp.int8)
        sums = jax.lax.dot_general(
            digits, self.values, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32
        )
        high, low = jnp.split(sums.astype(jnp.float32), 2)
        y = (high + low / (2 * DIGIT)) * scales * self.scales
        return y.reshape(*x.shape[:-1], len(self.scales))


def nearest(rows: Float[Array, "R I"]) -> tuple[Float[Array, "R I"], Float[Array, "R 1"]]:
    """Rows as whole numbers up to 127 in fp32, and what to multiply them by."""
    # Rows of nothing but zeros have a scale, too.
    scales = jnp.maximum(jnp.max(jnp.abs(rows), axis=1, keepdims=True), 1e-30) / DIGIT
    return jnp.round(rows / scales), scales


def holds_int8(params: Any) -> bool:
    """Whether any of the matrices is an Int8Matrix."""
    leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, Int8Matrix))
    return any(isinstance(leaf, Int8Matrix) for leaf in leaves)


def weight(
    module: nn.Module, name: str, init: Callable[..., Array], shape: tuple[int, int]
) -> Array | Int8Matrix:
    """A matrix of a module's params, or the Int8Matrix that stands in its place."""
    given = module.get_variable("params", name)
    return given if isinstance(given, Int8Matrix) else module.param(name, init, shape)
