"""What attention heads look at: entropy, rollout, and scores of well-known kinds of heads."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.artifact import Loaded, check_loaded
from jaxlm.inspection.activations import forward, id_rows
from jaxlm.inspection.arguments import (
    array_of_ids,
    as_numbers,
    check_number,
    check_one_trunk,
)
from jaxlm.inspection.naming import InspectionError
from jaxlm.models.activations import WEIGHTS, layers_of, of_layer


def attention_maps(loaded: Loaded, ids: Any, **keywords: Any) -> Float[Array, "L B N T T"]:
    """The attention weights of every head of every block.

    Raises: InspectionError for an encoder-decoder, whose maps `run` captures by name.
    """
    rows = id_rows(loaded, ids)
    check_one_trunk(loaded.model, "attention_maps")
    _, found = forward(loaded.model, loaded.params, rows, of_layer("*", WEIGHTS), **keywords)
    return jnp.stack(layers_of(found, WEIGHTS))


def head_entropy(weights: Float[Array, "*n T S"]) -> Float[Array, "*n T"]:
    """Entropy in nats of where each query attends: 0 at one key, log S at all alike.

    Clark et al. 2019, "What does BERT look at?".
    """
    weights = as_numbers("weights", weights, "..., T, S")
    return -(weights * jnp.log(jnp.maximum(weights, 1e-30))).sum(-1)


def attention_rollout(
    weights: Float[Array, "L B N T T"] | Sequence[Float[Array, "B N T T"]],
) -> Float[Array, "L B T T"]:
    """How much of each position's state comes from each token, after each block.

    Heads are averaged, the residual connection counts as half (Abnar and Zuidema 2020).
    """
    listed = isinstance(weights, Sequence)
    blocks = weights if listed else as_numbers("weights", weights, "L, B, N, T, T")
    if not len(blocks):
        raise InspectionError("weights must be those of one block or more, got none")
    mixed, rolled = None, []
    for given in blocks:
        block = as_numbers("weights of a block", given, "B, N, T, T")
        step = (block.mean(1) + jnp.eye(block.shape[-1])) / 2
        mixed = step if mixed is None else step @ mixed
        rolled.append(mixed)
    return jnp.stack(rolled)


def previous_token_score(weights: Float[Array, "B N T T"]) -> Float[Array, " N"]:
    """The mean weight of each head on the token before (Elhage et al. 2021)."""
    weights = as_numbers("weights", weights, "B, N, T, T")
    if weights.shape[-1] < 2:
        raise InspectionError("a row of one token has no token before; give two or more")
    return jnp.diagonal(weights, -1, axis1=2, axis2=3).mean((0, 2))


def duplicate_token_score(
    weights: Float[Array, "B N T T"], ids: Int[Array, "B T"]
) -> Float[Array, " N"]:
    """The mean weight on earlier copies of the query's own token (Wang et al. 2022)."""
    weights, rows = maps_of_rows(weights, ids)
    return mean_weight(weights, earlier(rows.shape[1]) & (rows[:, :, None] == rows[:, None]))


def induction_score(weights: Float[Array, "B N T T"], ids: Int[Array, "B T"]) -> Float[Array, " N"]:
    """The mean weight on what followed earlier copies of the query's token (Olsson et al. 2022)."""
    weights, rows = maps_of_rows(weights, ids)
    before = jnp.pad(rows, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    # At the token itself its own predecessor is compared, so the key must be earlier.
    return mean_weight(weights, earlier(rows.shape[1]) & (rows[:, :, None] == before[:, None]))


def maps_of_rows(weights: Any, ids: Any) -> tuple[Float[Array, "B N T T"], Int[Array, "B T"]]:
    """Attention weights and the ids that they are of. Raises: InspectionError for other ids."""
    weights, rows = as_numbers("weights", weights, "B, N, T, T"), array_of_ids("ids", ids)
    if rows.shape != (len(weights), weights.shape[-1]):
        raise InspectionError(
            f"weights of the shape {weights.shape} are not those of ids of the shape {rows.shape}"
        )
    return weights, jnp.asarray(rows)


def earlier(length: int) -> Array:
    return jnp.tri(length, k=-1, dtype=bool)[None]


def mean_weight(weights: Float[Array, "B N T T"], wanted: Array) -> Float[Array, " N"]:
    """What falls on the wanted keys, over the queries that have one."""
    falls = (weights * wanted[:, None]).sum(-1)
    queries = wanted.any(-1)[:, None]
    return (falls * queries).sum((0, 2)) / jnp.maximum(queries.sum(), 1)


class HeadScores(NamedTuple):
    """Scores from 0 to 1 of every head."""

    previous_token: Float[Array, "L N"]
    duplicate_token: Float[Array, "L N"]
    induction: Float[Array, "L N"]


def head_scores(loaded: Loaded, ids: Any = None, seed: int = 0) -> HeadScores:
    """Every head's scores, over random tokens that are repeated once unless ids are given."""
    check_loaded(loaded)
    check_one_trunk(loaded.model, "head_scores")
    limit, size = loaded.config.max_seq_len or 64, loaded.config.vocab_size or 0
    rows = repeated_ids(size, min(limit // 2, 32), 8, seed) if ids is None else id_rows(loaded, ids)
    weights = attention_maps(loaded, rows)
    return HeadScores(
        jnp.stack([previous_token_score(w) for w in weights]),
        jnp.stack([duplicate_token_score(w, rows) for w in weights]),
        jnp.stack([induction_score(w, rows) for w in weights]),
    )


def repeated_ids(vocab_size: int, length: int, rows: int, seed: int = 0) -> Int[Array, "R T"]:
    """Rows of random tokens (R, 2 length) whose second half repeats the first."""
    for name, value in {"vocab_size": vocab_size, "length": length, "rows": rows}.items():
        check_number(name, value, 1)
    check_number("seed", seed)
    half = jax.random.randint(jax.random.key(seed), (rows, length), 0, vocab_size)
    return jnp.concatenate([half, half], axis=1)
