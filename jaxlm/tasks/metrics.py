"""Scores of predictions, by scikit-learn, seqeval and SciPy."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm.config import JaxlmError
from jaxlm.tokenizer.encoding import IDEOGRAPHS

WORD = re.compile(f"[{IDEOGRAPHS}]|[^\\s{IDEOGRAPHS}]+")
PUNCTUATION = str.maketrans("", "", string.punctuation + "，。！？；：、（）《》“”‘’")
ENTITY_TAG = re.compile(r"O|[BIESLU]-.+")
MARKS = str.maketrans("LU", "ES")  # seqeval knows last and unit tags as end and single ones


class MetricsError(JaxlmError):
    """Scores that cannot be computed."""


def library(name: str) -> Any:
    """A module of the metrics extra."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise MetricsError(
            'scores of this task take the metrics extra: pip install "jaxlm[metrics]"'
        ) from None


def single_label_scores(
    truth: Sequence[str], found: Sequence[str], labels: Sequence[str]
) -> dict[str, float]:
    """Accuracy, and F1 averaged over the classes (macro) and over all decisions (micro)."""
    sklearn = library("sklearn.metrics")
    options: dict[str, Any] = {"labels": list(labels), "zero_division": 0.0}
    return {
        "accuracy": float(sklearn.accuracy_score(truth, found)),
        "macro_f1": float(sklearn.f1_score(truth, found, average="macro", **options)),
        "micro_f1": float(sklearn.f1_score(truth, found, average="micro", **options)),
    }


def multi_label_scores(
    truth: Sequence[Sequence[str]], found: Sequence[Sequence[str]], labels: Sequence[str]
) -> dict[str, float]:
    """As for single labels; accuracy counts the rows whose labels are all right."""
    sklearn = library("sklearn.metrics")
    hot = [[[label in row for label in labels] for row in rows] for rows in (truth, found)]
    left, right = (np.array(rows, int) for rows in hot)
    # scikit-learn takes a single column for two classes, 0 and 1.
    chosen = list(range(len(labels))) if len(labels) > 1 else [1]
    options: dict[str, Any] = {"labels": chosen, "zero_division": 0.0}
    return {
        "accuracy": float((left == right).all(axis=1).mean()),
        "macro_f1": float(sklearn.f1_score(left, right, average="macro", **options)),
        "micro_f1": float(sklearn.f1_score(left, right, average="micro", **options)),
    }


def number_scores(truth: Sequence[float], found: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's correlation; 0 where one side is constant."""
    stats = library("scipy.stats")

    if len(truth) < 2 or len(set(truth)) == 1 or len(set(found)) == 1:
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": float(stats.pearsonr(truth, found)[0]),
        "spearman": float(stats.spearmanr(truth, found)[0]),
    }


def tag_scores(
    truth: Sequence[Sequence[str]], found: Sequence[Sequence[str]], labels: Sequence[str]
) -> dict[str, float]:
    """Of entity tags (B-PER, I-PER, O; E or L, S or U): F1, precision and recall of whole entities.

    Of other tags the macro F1; of both the share of right tags.
    """
    pairs = [pair for rows in zip(truth, found, strict=True) for pair in zip(*rows, strict=True)]
    left, right = zip(*pairs, strict=True)
    if not are_entities(labels):
        return single_label_scores(left, right, labels)
    seqeval = library("seqeval.metrics")
    both = [
        [[tag[:1].translate(MARKS) + tag[1:] for tag in tags] for tags in rows]
        for rows in (truth, found)
    ]
    names = ("f1", "precision", "recall")
    scores = {
        f"entity_{n}": float(getattr(seqeval, f"{n}_score")(*both, zero_division=0)) for n in names
    }
    return scores | {"accuracy": float(np.mean([a == b for a, b in pairs]))}


def are_entities(labels: Sequence[str]) -> bool:
    return all(ENTITY_TAG.fullmatch(label) for label in labels)


def answer_scores(truth: Sequence[Sequence[str]], found: Sequence[str]) -> dict[str, float]:
    """Exact match and F1 over words, each with the best of the right answers (SQuAD).

    Case, punctuation and English articles do not count; a Chinese character is a word.
    """
    exact, overlap = [], []
    for answers, given in zip(truth, found, strict=True):
        words = answer_words(given)
        pairs = [(answer_words(answer), words) for answer in answers or [""]]
        exact.append(max(float(a == b) for a, b in pairs))
        overlap.append(max(word_f1(a, b) for a, b in pairs))
    return {"f1": float(np.mean(overlap)), "exact_match": float(np.mean(exact))}


def answer_words(text: str) -> list[str]:
    words = WORD.findall(text.lower().translate(PUNCTUATION))
    return [word for word in words if word not in ("a", "an", "the")]


def word_f1(truth: list[str], found: list[str]) -> float:
    if not truth or not found:
        return float(truth == found)
    common = sum((Counter(truth) & Counter(found)).values())
    return 2 * common / (len(truth) + len(found))


def confusion(truth: Sequence[str], found: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Counts (C, C): rows are what is right, columns what was said."""
    return library("sklearn.metrics").confusion_matrix(truth, found, labels=list(labels))
