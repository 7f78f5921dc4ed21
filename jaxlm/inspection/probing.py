"""Probes: what can be read off the states of each layer by a linear classifier."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.artifact import Loaded, check_loaded
from jaxlm.inspection.activations import text_ids
from jaxlm.inspection.arguments import (
    as_numbers,
    check_number,
    check_one_trunk,
    in_a_line,
    list_of_texts,
)
from jaxlm.inspection.lenses import residual_stream
from jaxlm.inspection.naming import InspectionError
from jaxlm.models.heads import last_token, mean_of_tokens
from jaxlm.ops.padding import pad_to_bucket

POOLING = ("mean", "first", "last")
BATCH = 32


def states_of_texts(
    loaded: Loaded, texts: str | Sequence[str], pooling: str = "mean"
) -> Float[np.ndarray, "M n D"]:
    """One state a text in each of M = L + 1 places: the mean, first or last token's.

    One text alone gives one state. Raises: InspectionError for an unknown pooling, no text, or one
    that is longer than the model's context.
    """
    check_loaded(loaded)
    check_one_trunk(loaded.model, "states_of_texts")
    if pooling not in POOLING:
        raise InspectionError(f"pooling must be one of {', '.join(POOLING)}, got {pooling!r:.60}")
    given, limit = list_of_texts("texts", texts), loaded.config.max_seq_len
    if not given:
        raise InspectionError("texts is empty; give one text or more")
    rows = [text_ids(loaded, text) for text in given]
    longest = max(map(len, rows))
    if limit is not None and longest > limit:
        raise InspectionError(f"a text has {longest} tokens, but the model takes {limit}")

    @jax.jit
    def pooled(ids: Array, mask: Array) -> Float[Array, "M B D"]:
        stream = residual_stream(loaded.model, loaded.params, ids, attention_mask=mask)
        if pooling == "first":
            return stream[:, :, 0]
        pool = mean_of_tokens if pooling == "mean" else last_token
        return jnp.stack([pool(states, mask) for states in stream])

    found = []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        ids = pad_to_bucket(part, 16, 0)[:, :limit]
        mask = np.arange(ids.shape[1])[None] < np.array([len(row) for row in part])[:, None]
        found.append(np.asarray(pooled(ids, mask)))
    return np.concatenate(found, axis=1)


class ProbeScores(NamedTuple):
    """Accuracies of a probe on texts that it was not trained on, by place of the stream."""

    accuracy: Float[np.ndarray, " M"]
    shuffled: Float[np.ndarray, " M"]  # the same with labels in random order
    majority: float  # of the commonest label


def probe_layers(
    states: Float[np.ndarray, "M n D"], labels: Sequence[Any], folds: int = 5, seed: int = 0
) -> ProbeScores:
    """How well logistic regression tells labels by the states of each layer.

    Alain and Bengio 2016. Cross-validated. What the probe reaches with shuffled labels it owes to
    itself and not to the states (Hewitt and Liang 2019). Needs scikit-learn, in `jaxlm[metrics]`.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_score
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise InspectionError(
            'probes need scikit-learn: python -m pip install "jaxlm[metrics]"'
        ) from None
    check_number("folds", folds, 2)
    check_number("seed", seed, 0, 2**32 - 1)
    places = np.asarray(as_numbers("states", states, "M, n, D"))
    right = np.asarray(labels)
    if right.shape != places.shape[1:2]:
        raise InspectionError(
            f"labels must be a list with one for each of the {places.shape[1]} texts, got "
            f"{right.size if right.ndim == 1 else in_a_line(labels)}"
        )
    if not np.isfinite(places).all():
        raise InspectionError("states must be finite, got some that are not")
    known, counts = np.unique(right, return_counts=True)
    if len(known) < 2 or counts.min() < folds:
        raise InspectionError(
            f"a probe takes two labels or more with {folds} texts each, got "
            + ", ".join(f"{n} of {label}" for label, n in zip(known, counts, strict=True))
        )
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    mixed = np.random.default_rng(seed).permutation(right)

    def accuracies(labels: np.ndarray) -> np.ndarray:
        scores = [cross_val_score(probe, x, labels, cv=splits).mean() for x in places]
        return np.array(scores)

    return ProbeScores(accuracies(right), accuracies(mixed), float(counts.max() / counts.sum()))
