"""The weights as decoding wants them."""

import dataclasses
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.generation.programs import compiles
from jaxlm.models import CausalLM
from jaxlm.nn.int8 import Int8Matrix

# One transposed table for each table of token vectors that is still alive, by its id.
_transposed: dict[int, Array] = {}


def prepared(model: CausalLM, params: Any) -> tuple[CausalLM, Any]:
    """An equal model with its head as a (D, V) matrix, which a matrix-vector product reads fast.

    A tied head's copy is made once for each table of token vectors, and goes with it; a table in
    int8 needs none, and one of NumPy, which may change, is copied each time.
    """
    if not model.config.tie_embeddings:
        return model, params
    table = params["backbone"]["embed"]["tokens"]
    if isinstance(table, Int8Matrix):
        return model, params
    untied = CausalLM(dataclasses.replace(model.config, tie_embeddings=False))
    if not isinstance(table, jax.Array):
        return untied, {**params, "head": transpose(table)}
    if id(table) not in _transposed:
        _transposed[id(table)] = transpose(table)
        weakref.finalize(table, _transposed.pop, id(table), None)
    return untied, {**params, "head": _transposed[id(table)]}


@jax.jit
def transpose(table: Float[Array | np.ndarray, "V D"]) -> Float[Array, "D V"]:
    compiles["transpose"] += 1
    return jnp.asarray(table).T
