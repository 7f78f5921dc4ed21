"""Which tokens of a text a result rests on: gradients, values zeroed, tokens left out."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.artifact import Loaded
from jaxlm.inspection.activations import forward, id_rows
from jaxlm.inspection.naming import InspectionError
from jaxlm.models.activations import EMBEDDINGS, RESIDUAL, VALUE, of_layer

Target = Callable[[Any], Array]  # of what the model answers to one row, a number


def token_target(token: int, position: int = -1) -> Target:
    """The log-probability of a token: the next one, or a masked one at its position."""
    return lambda logits: jax.nn.log_softmax(vocabulary_logits(logits)[0, position])[token]


def label_target(label: int) -> Target:
    """The log-probability of a class of the sequence."""
    return lambda logits: jax.nn.log_softmax(logits[0])[label]


def text_target(ids: Any, start: int) -> Target:
    """The log-probability of a row's tokens from `start` on, such as a generated text."""
    row = jnp.asarray(ids).reshape(-1)

    def log_probability(logits: Any) -> Array:
        log_probs = jax.nn.log_softmax(vocabulary_logits(logits)[0, start - 1 : -1])
        return jnp.take_along_axis(log_probs, row[start:, None], axis=1).sum()

    return log_probability


def vocabulary_logits(answer: Any) -> Array:
    # A `pretraining` head gives next-sentence logits, too.
    return answer[0] if isinstance(answer, tuple) else answer


def one_row(loaded: Loaded, ids: Any) -> Int[Array, "1 T"]:
    rows = id_rows(loaded, ids)
    if len(rows) != 1:
        raise InspectionError(f"this reads one row of ids, got {len(rows)}")
    return rows


def score_of_embeddings(
    loaded: Loaded, rows: Array, target: Target
) -> tuple[Callable[[Array], Array], Float[Array, "1 T D"]]:
    """The target as a function of the embedded tokens, and these."""
    _, found = forward(loaded.model, loaded.params, rows, EMBEDDINGS)

    def score(embedded: Array) -> Array:
        answer, _ = forward(loaded.model, loaded.params, rows, (), {EMBEDDINGS: embedded})
        return target(answer)

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
    score, embedded = score_of_embeddings(loaded, rows, target)
    start = jnp.zeros_like(embedded)
    if baseline is not None:
        _, found = forward(loaded.model, loaded.params, one_row(loaded, baseline), EMBEDDINGS)
        start = found[EMBEDDINGS]
    way = embedded - start
    middles = (jnp.arange(steps) + 0.5) / steps

    @jax.jit
    def mean_gradient() -> Array:
        gradients = jax.lax.map(lambda share: jax.grad(score)(start + share * way), middles)
        return gradients.mean(0)

    return (mean_gradient() * way).sum(-1)[0]


def occlusion(
    loaded: Loaded, ids: Any, target: Target, replacement: int | None = None
) -> Float[Array, " T"]:
    """How much the target falls when each token is replaced.

    Zeiler and Fergus 2014; Li et al. 2016. By the mask token where the vocabulary has one, unless
    a `replacement` is given.
    """
    rows, tokenizer = one_row(loaded, ids), loaded.tokenizer
    if replacement is None:
        known = (tokenizer.mask_id, tokenizer.unk_id, tokenizer.pad_id, tokenizer.eos_id, 0)
        replacement = next(token for token in known if token is not None)
    T = rows.shape[1]
    others = jnp.where(jnp.eye(T, dtype=bool), replacement, rows)

    @jax.jit
    def score(row: Array) -> Array:
        return target(forward(loaded.model, loaded.params, row[None])[0])

    return score(rows[0]) - jax.lax.map(score, others)


def value_zeroing(loaded: Loaded, ids: Any) -> Float[Array, "L T T"]:
    """How much each state after a block changes when a token's values in that block are zero.

    Cosine distances, as shares of each row's sum: from position t (rows) to token s (columns).
    Mohebbi et al. 2023.
    """
    rows = one_row(loaded, ids)
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


def shares(saliency: Float[Array, " T"]) -> Sequence[float]:
    """Magnitudes as shares of their sum, to be shown."""
    size = jnp.abs(saliency)
    return (size / jnp.maximum(size.sum(), 1e-12)).tolist()
