"""Scores of predictions by scikit-learn, seqeval, SciPy and sacrebleu."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm.config import JaxlmError
from jaxlm.data.tagged import ENTITY_TAG
from jaxlm.tokenizer.characters import IDEOGRAPHS

WORD = re.compile(f"[{IDEOGRAPHS}]|[^\\s{IDEOGRAPHS}]+")
PUNCTUATION = str.maketrans("", "", string.punctuation + "，。！？；：、（）《》“”‘’")
MARKS = str.maketrans("LU", "ES")  # seqeval writes last and unit tags as end and single


class MetricsError(JaxlmError):
    """Scores that cannot be computed."""


def library(name: str) -> Any:
    """A module of the metrics extra."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise MetricsError(
            'scores of this task need the metrics extra: pip install "jaxlm[metrics]"'
        ) from None


def single_label_scores(
    truth: Sequence[str], found: Sequence[str], labels: Sequence[str]
) -> dict[str, float]:
    """Accuracy, and F1 averaged over classes (macro) and over all decisions (micro)."""
    sklearn = library("sklearn.metrics")
    options: dict[str, Any] = {"labels": list(labels), "zero_division": 0.0}
    return {
        "accuracy": float(sklearn.accuracy_score(truth, found)),
        "macro_f1": float(sklearn.f1_score(truth, found, average="macro", **options)),
        "micro_f1": float(sklearn.f1_score(truth, found, average="micro", **options)),
    }


def class_scores(
    truth: Sequence[str], found: Sequence[str], labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and the number of rows of each class."""
    sklearn = library("sklearn.metrics")
    options: dict[str, Any] = {"labels": list(labels), "zero_division": 0.0}
    return scores_by_name(labels, sklearn.precision_recall_fscore_support(truth, found, **options))


def scores_by_name(names: Sequence[str], columns: Sequence[Any]) -> dict[str, dict[str, float]]:
    rows = zip(*columns, strict=True)
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "rows": int(n)}
        for name, (p, r, f, n) in zip(names, rows, strict=True)
    }


def multi_hot(rows: Sequence[Sequence[str]], labels: Sequence[str]) -> np.ndarray:
    """Which labels each row has, as 0 and 1 (N, C)."""
    return np.array([[label in row for label in labels] for row in rows], int)


def multi_label_scores(
    truth: Sequence[Sequence[str]], found: Sequence[Sequence[str]], labels: Sequence[str]
) -> dict[str, float]:
    """As `single_label_scores`; accuracy counts rows whose labels are all correct."""
    sklearn = library("sklearn.metrics")
    left, right = multi_hot(truth, labels), multi_hot(found, labels)
    # scikit-learn reads a single column as two classes, 0 and 1.
    chosen = list(range(len(labels))) if len(labels) > 1 else [1]
    options: dict[str, Any] = {"labels": chosen, "zero_division": 0.0}
    return {
        "accuracy": float((left == right).all(axis=1).mean()),
        "macro_f1": float(sklearn.f1_score(left, right, average="macro", **options)),
        "micro_f1": float(sklearn.f1_score(left, right, average="micro", **options)),
    }


def multi_class_scores(
    truth: Sequence[Sequence[str]], found: Sequence[Sequence[str]], labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """As `class_scores`, for rows with several labels."""
    columns = zip(multi_hot(truth, labels).T, multi_hot(found, labels).T, strict=True)
    words = [[["yes" if has else "no" for has in side] for side in pair] for pair in columns]
    return {
        label: class_scores(left, right, ["yes"])["yes"]
        for label, (left, right) in zip(labels, words, strict=True)
    }


def number_scores(truth: Sequence[float], found: Sequence[float]) -> dict[str, float]:
    """Pearson and Spearman correlation; 0 where one side is constant."""
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
    """For entity tags (B-PER, I-PER, O; E or L, S or U): F1, precision and recall of entities.

    For other tags, as `single_label_scores`; for both, the accuracy of the tags.
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


def entity_scores(
    truth: Sequence[Sequence[str]], found: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and the number of true entities (rows) of each entity type."""
    both = [
        [[tag[:1].translate(MARKS) + tag[1:] for tag in tags] for tags in rows]
        for rows in (truth, found)
    ]
    names = sorted({tag[2:] for rows in both for tags in rows for tag in tags if tag != "O"})
    score = library("seqeval.metrics.sequence_labeling").precision_recall_fscore_support
    return scores_by_name(names, score(*both, average=None, zero_division=0)) if names else {}


def are_entities(labels: Sequence[str]) -> bool:
    return all(ENTITY_TAG.fullmatch(label) for label in labels)


def entity_spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The type, first word and end of each entity that B-, I-, E- and S- tags mark."""
    found: list[tuple[str, int, int]] = []
    open_kind = None
    for i, tag in enumerate(tags):
        mark, _, kind = tag.partition("-")
        if mark in ("B", "S", "U") or (kind and kind != open_kind):
            found.append((kind, i, i + 1))
        elif kind:
            found[-1] = (kind, found[-1][1], i + 1)
        open_kind = kind if mark in ("B", "I") else None
    return found


def answer_scores(truth: Sequence[Sequence[str]], found: Sequence[str]) -> dict[str, float]:
    """Exact match and F1 over words, each for the best of the correct answers (SQuAD).

    Case, punctuation and English articles are ignored; a Chinese character is a word.
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


def six_digits(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in scores.items()}


def confusion(truth: Sequence[str], found: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Counts (C, C): rows are true labels, columns predicted ones."""
    return library("sklearn.metrics").confusion_matrix(truth, found, labels=list(labels))


def is_chinese(texts: Sequence[str]) -> bool:
    """Whether most characters of texts are Chinese, so that spaces part no words."""
    whole = "".join(texts)
    return 2 * len(re.findall(f"[{IDEOGRAPHS}]", whole)) > len(whole)


def translation_scores(
    truth: Sequence[str], found: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """BLEU and chrF (0 to 100) of translations by sacrebleu, and its signatures by score.

    BLEU is cased, in words of mteval-v13a, or in characters where the truth is Chinese (Papineni et
    al. 2002, Popović 2015, Post 2018).
    """
    sacrebleu = library("sacrebleu.metrics")
    scorers = {
        "bleu": sacrebleu.BLEU(tokenize="zh" if is_chinese(truth) else "13a"),
        "chrf": sacrebleu.CHRF(),
    }
    scores = {
        name: float(scorer.corpus_score(list(found), [list(truth)]).score)
        for name, scorer in scorers.items()
    }
    return scores, {name: str(scorer.get_signature()) for name, scorer in scorers.items()}


def exact_match(truth: Sequence[str], found: Sequence[str]) -> float:
    """The share of texts that are as they should be, but for spaces around them."""
    return float(np.mean([a.strip() == b.strip() for a, b in zip(truth, found, strict=True)]))
