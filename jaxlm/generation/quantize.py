"""Weights in int8: a quarter of the memory, and what that costs in quality."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.artifact import Loaded
from jaxlm.generation.options import GenerationError
from jaxlm.generation.text_batch import generating
from jaxlm.models import AutoregressiveLM
from jaxlm.models.parameters import output_dim, path_name
from jaxlm.nn.int8 import Int8Matrix
from jaxlm.ops.padding import pad_rows

WINDOW = 256  # tokens compared at a time
MOST_TOKENS = 4096  # compared altogether, which takes seconds


@dataclass(frozen=True)
class Comparison:
    """What other params change on texts; means are over tokens, each after those before it."""

    num_tokens: int
    divergence: float  # Kullback-Leibler, of the next token's distribution, nats a token
    perplexity: float  # by the first params
    other_perplexity: float


def quantized(loaded: Loaded) -> Loaded:
    """The same model with its matrices in int8, a scale an output, ready to generate.

    Token vectors are among them, with the head that reads them; position vectors, biases and norms
    stay in fp32. GenerationError where the model does not generate texts.
    """
    generating(loaded)
    tree_map = jax.tree_util.tree_map_with_path
    params = tree_map(leaf_in_int8, loaded.params, is_leaf=lambda x: isinstance(x, Int8Matrix))
    return dataclasses.replace(loaded, params=params)


def leaf_in_int8(path: tuple, leaf: Any) -> Any:
    """The Int8Matrix of a weight that multiplies activations; any other leaf unchanged."""
    dim = output_dim(path_name(path))
    if isinstance(leaf, Int8Matrix) or dim is None:
        return leaf
    return rounded(leaf, transpose=dim == 1)


@partial(jax.jit, static_argnames="transpose")
def rounded(matrix: Float[Array, "I O"], transpose: bool) -> Int8Matrix:
    return Int8Matrix.of(matrix.T if transpose else matrix)


def num_bytes(params: Any) -> int:
    """The memory that params take."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def compare_params(
    model: AutoregressiveLM, params: Any, others: Any, rows: Sequence[Sequence[int]]
) -> Comparison:
    """How far the distributions by other params are from those by the first, on rows of tokens.

    At most 4,096 tokens count, in windows of 256 or the model's context. GenerationError where no
    row has two tokens.
    """
    size = min(WINDOW, model.config.max_seq_len or WINDOW)
    windows = [row[i : i + size] for row in rows for i in range(0, len(row), size)]
    windows = [window for window in windows if len(window) > 1][: max(1, MOST_TOKENS // size)]
    if not windows:
        raise GenerationError("params are compared on texts of two tokens or more")
    sums = np.zeros(3)
    for window in windows:
        ids = pad_rows([window], (1, size))
        sums += compare_window(model, params, others, ids, np.int32(len(window) - 1))
    count = sum(len(window) - 1 for window in windows)
    divergence, first, second = (sums / count).tolist()
    return Comparison(count, divergence, float(np.exp(first)), float(np.exp(second)))


@partial(jax.jit, static_argnames="model")
def compare_window(
    model: AutoregressiveLM, params: Any, others: Any, ids: Int[Array, "1 T"], count: Int[Array, ""]
) -> Float[Array, "3"]:
    """Sums over the first `count` next tokens: the divergence, and the loss by either params."""
    apply: Any = model.apply
    first, second = (jax.nn.log_softmax(apply({"params": p}, ids)[0]) for p in (params, others))
    divergence = jnp.sum(jnp.exp(first) * (first - second), axis=1)
    following = jnp.roll(ids[0], -1)[:, None]
    losses = (-jnp.take_along_axis(x, following, axis=1)[:, 0] for x in (first, second))
    counted = jnp.arange(ids.shape[1]) < count
    return jnp.sum(jnp.stack([divergence, *losses]), axis=1, where=counted)
