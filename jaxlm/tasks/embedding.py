"""A vector for each text: the mean of its hidden states."""

from collections.abc import Iterable
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.artifact import Loaded, check_loaded
from jaxlm.config import JaxlmError
from jaxlm.data.batches import padded_length
from jaxlm.data.sources import DataError
from jaxlm.models.heads import TRUNKS, mean_of_tokens
from jaxlm.tasks.examples import Joiner
from jaxlm.tasks.inference import listed
from jaxlm.tasks.row_task import EVAL_ROWS


@jax.jit(static_argnums=0)
def pooled_states(
    trunk: Any, params: Any, ids: Int[Array, "B T"], mask: Int[Array, "B T"]
) -> Float[Array, "B D"]:
    """The mean of the hidden states where the mask is 1."""
    return mean_of_tokens(trunk.apply({"params": params}, ids, attention_mask=mask), mask)


@overload
def embed(loaded: Loaded, texts: str, normalize: bool = True) -> Float[np.ndarray, " D"]: ...


@overload
def embed(
    loaded: Loaded, texts: Iterable[str], normalize: bool = True
) -> Float[np.ndarray, "B D"]: ...


def embed(loaded, texts, normalize=True):
    """A vector (D,) of each text: the mean of its hidden states, of length 1 with `normalize`.

    The dot product of two such vectors is their cosine similarity (Reimers and Gurevych 2019).
    Texts longer than the model's context are cut. A single text gives a single vector.

    Raises: DataError for an empty text, JaxlmError for a value that is not a text.
    """
    check_loaded(loaded)
    texts, alone = listed(texts, "embed")
    if wrong := [(i, text) for i, text in enumerate(texts, 1) if not isinstance(text, str)]:
        raise JaxlmError(f"text {wrong[0][0]} is {wrong[0][1]!r:.60}, which is no text")
    config, joiner = loaded.config, Joiner(loaded.tokenizer, loaded.config.max_seq_len)
    rows = [joiner.one(ids).ids if ids else [] for ids in loaded.tokenizer.encode_batch(texts)]
    if empty := [i + 1 for i, row in enumerate(rows) if not row]:
        raise DataError(f"text {empty[0]} is empty")
    trunk = TRUNKS[config.architecture](config, attention=loaded.model.attention)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    vectors = np.zeros((len(rows), config.d_model), np.float32)
    for first in range(0, len(order), EVAL_ROWS):
        chosen = order[first : first + EVAL_ROWS]
        length = padded_length(max(len(rows[i]) for i in chosen), config.max_seq_len)
        ids, mask = np.zeros((2, EVAL_ROWS, length), np.int32)
        mask[:, 0] = 1  # attention over no token is NaN
        for row, i in enumerate(chosen):
            ids[row, : len(rows[i])] = rows[i]
            mask[row, : len(rows[i])] = 1
        found = pooled_states(trunk, loaded.params["backbone"], jnp.asarray(ids), jnp.asarray(mask))
        vectors[chosen] = np.asarray(found)[: len(chosen)]
    if normalize:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[0] if alone else vectors
