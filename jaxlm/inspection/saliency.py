"""Which tokens of a text a result rests on: gradients, values zeroed, tokens left out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.artifact import Loaded
from jaxlm.inspection.activations import forward, one_row
from jaxlm.inspection.arguments import (
    Index,
    array_of_ids,
    check_entries,
    check_index,
    check_number,
    check_one_trunk,
    in_a_line,
    num_tokens,
    number_from,
    vocabulary_logits,
)
from jaxlm.inspection.naming import InspectionError
from jaxlm.models.activations import EMBEDDINGS, RESIDUAL, VALUE, of_layer

Target = Callable[[Any], Array]  # of what the model answers to one row, a number


def token_target(token: Index, position: Index = -1) -> Target:
    """The log-probability of a token: the next one, or a masked one at its position.

    Called, it raises InspectionError for a token or a position that the logits have not.
    """

    def log_probability(answer: Any) -> Float[Array, ""]:
        logits = logits_of_row(answer, "token_target")
        check_index("position", position, len(logits), from_end=True)
        check_index("token", token, logits.shape[-1])
        return jax.nn.log_softmax(logits[position])[token]

    return log_probability


def label_target(label: Index) -> Target:
    """The log-probability of a class of the sequence; InspectionError where there is none."""

    def log_probability(logits: Any) -> Float[Array, ""]:
        if getattr(logits, "ndim", None) != 2 or len(logits) != 1:
            raise InspectionError(
                f"label_target reads the logits of labels (1, C), got {in_a_line(logits)}; that of "
                "a language model is token_target"
            )
        check_index("label", label, logits.shape[1])
        return jax.nn.log_softmax(logits[0])[label]

    return log_probability


def text_target(ids: Any, start: int) -> Target:
    """The log-probability of a row's tokens from `start` on, such as a generated text.

    `ids` are those of the whole row, and start counts them from 0: at least one is given before.
    """
    rows = array_of_ids("ids", ids)
    if len(rows) != 1:
        raise InspectionError(f"text_target reads one row of ids, got {len(rows)}")
    if rows.shape[1] < 2:
        raise InspectionError("text_target takes a token that is given and one or more after it")
    check_number("start", start, 1, rows.shape[1] - 1)
    row = jnp.asarray(rows)[0]

    def log_probability(answer: Any) -> Float[Array, ""]:
        logits = logits_of_row(answer, "text_target")
        check_entries("ids", rows, logits.shape[-1])
        if len(logits) != len(row):
            raise InspectionError(
                f"text_target has {len(row)} ids, but the model read {len(logits)}; give both the "
                "whole row"
            )
        log_probs = jax.nn.log_softmax(logits[start - 1 : -1])
        return jnp.take_along_axis(log_probs, row[start:, None], axis=1).sum()

    return log_probability


def logits_of_row(answer: Any, name: str) -> Float[Array, "T V"]:
    """The logits of one row of tokens. Raises: InspectionError for other answers."""
    logits = vocabulary_logits(answer, name)
    if len(logits) != 1:
        raise InspectionError(f"{name} reads the answer to one row of ids, got {len(logits)}")
    return logits[0]


def score_of_embeddings(
    loaded: Loaded, rows: Array, target: Target
) -> tuple[Callable[[Array], Array], Float[Array, "1 T D"]]:
    """The target as a function of the embedded tokens, and these."""
    check_one_trunk(loaded.model, "the gradient of a target")
    _, found = forward(loaded.model, loaded.params, rows, EMBEDDINGS)

    def score(embedded: Array) -> Array:
        answer, _ = forward(loaded.model, loaded.params, rows, (), {EMBEDDINGS: embedded})
        return number_from("target", target, answer)

    return score, found[EMBEDDINGS]


def gradient_x_input(loaded: Loaded, ids: Any, target: Target) -> Float[Array, " T"]:
    """The gradient of the target at each embedded token, times it (Shrikumar et al. 2016)."""
    score, embedded = score_of_embeddings(loaded, one_row(loaded, ids), target)
    return (jax.jit(jax.grad(score))(embedded) * embedded).sum(-1)[0]


def integrated_gradients(
    loaded: Loaded, ids: Any, target: Target, baseline: Any = None, steps: int = 64
) -> Float[Array, " T"]:
    """Gradients along the straight way from a baseline, times it (Sundararajan et al. 2017).

    The sum is the target minus its value at the baseline: embeddings of zero, or those of other ids
    of the same number.
    """
    rows = one_row(loaded, ids)
    check_number("steps", steps, 1)
    score, embedded = score_of_embeddings(loaded, rows, target)
    start = jnp.zeros_like(embedded)
    if baseline is not None:
        others = one_row(loaded, baseline)
        if others.shape != rows.shape:
            raise InspectionError(
                f"the text has {rows.shape[1]} tokens and the baseline {others.shape[1]}; give as "
                "many"
            )
        _, found = forward(loaded.model, loaded.params, others, EMBEDDINGS)
        start = found[EMBEDDINGS]
    way = embedded - start
    middles = (jnp.arange(steps) + 0.5) / steps

    @jax.jit
    def mean_gradient() -> Array:
        gradients = jax.lax.map(lambda share: jax.grad(score)(start + share * way), middles)
        return gradients.mean(0)

    return (mean_gradient() * way).sum(-1)[0]


def occlusion(
    loaded: Loaded, ids: Any, target: Target, replacement: Index | None = None
) -> Float[Array, " T"]:
    """How much the target falls when each token is replaced.

    Zeiler and Fergus 2014; Li et al. 2016. By the mask token where the vocabulary has one, unless
    a `replacement` is given.
    """
    rows, tokenizer = one_row(loaded, ids), loaded.tokenizer
    check_one_trunk(loaded.model, "occlusion")
    if replacement is None:
        known = (tokenizer.mask_id, tokenizer.unk_id, tokenizer.pad_id, tokenizer.eos_id, 0)
        replacement = next(token for token in known if token is not None)
    check_index("replacement", replacement, num_tokens(loaded.model) or 1)
    T = rows.shape[1]
    others = jnp.where(jnp.eye(T, dtype=bool), replacement, rows)

    @jax.jit
    def score(row: Array) -> Array:
        answer, _ = forward(loaded.model, loaded.params, row[None])
        return number_from("target", target, answer)

    return score(rows[0]) - jax.lax.map(score, others)


def value_zeroing(loaded: Loaded, ids: Any) -> Float[Array, "L T T"]:
    """How much each state after a block changes when a token's values in that block are zero.

    Cosine distances, as shares of each row's sum: from position t (rows) to token s (columns).
    Mohebbi et al. 2023.
    """
    rows = one_row(loaded, ids)
    check_one_trunk(loaded.model, "value_zeroing")
    T, blocks = rows.shape[1], []

    for i in range(loaded.config.num_layers):
        value, after = of_layer(i, VALUE), of_layer(i, RESIDUAL)

        @jax.jit
        def changed(token: Array, value: str = value, after: str = after) -> Float[Array, " T"]:
            edit = {value: lambda x: jnp.where(jnp.arange(T)[:, None] == token, 0.0, x)}
            _, found = forward(loaded.model, loaded.params, rows, after, edit)
            _, whole = forward(loaded.model, loaded.params, rows, after)
            return 1 - cosine(found[after][0], whole[after][0])

        distances = jax.lax.map(changed, jnp.arange(T)).T
        distances = jnp.maximum(distances, 0)
        blocks.append(distances / jnp.maximum(distances.sum(-1, keepdims=True), 1e-12))
    return jnp.stack(blocks)


def cosine(x: Float[Array, "*#n D"], y: Float[Array, "*#n D"]) -> Float[Array, "*m"]:
    """The cosine of the angle between vectors; one may stand for all."""
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    return (x * y).sum(-1) / jnp.maximum(norms(x) * norms(y), 1e-12)


def norms(x: Float[Array, "*n D"]) -> Float[Array, "*n"]:
    return jnp.sqrt((x**2).sum(-1))
