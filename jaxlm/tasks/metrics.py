"""Scores of predictions, by scikit-learn, seqeval and SciPy, and simple models to compare with."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm.config import JaxlmError
from jaxlm.data.rows import ENTITY_TAG
from jaxlm.tokenizer.encoding import IDEOGRAPHS

WORD = re.compile(f"[{IDEOGRAPHS}]|[^\\s{IDEOGRAPHS}]+")
PUNCTUATION = str.maketrans("", "", string.punctuation + "，。！？；：、（）《》“”‘’")
MARKS = str.maketrans("LU", "ES")  # seqeval knows last and unit tags as end and single ones
# Chinese characters and words, of which TF-IDF takes those alone and pairs side by side.
TERM = f"[{IDEOGRAPHS}]|[^\\W{IDEOGRAPHS}]+"
MOST_TERMS, MOST_DECISIONS = 50_000, 5_000_000  # decisions: rows to learn from times labels
FEW_LABELS = 20  # up to which logistic regression is fitted to all labels together


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


def class_scores(
    truth: Sequence[str], found: Sequence[str], labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and the number of rows of each class."""
    sklearn = library("sklearn.metrics")
    options: dict[str, Any] = {"labels": list(labels), "zero_division": 0.0}
    return by_name(labels, sklearn.precision_recall_fscore_support(truth, found, **options))


def by_name(names: Sequence[str], columns: Sequence[Any]) -> dict[str, dict[str, float]]:
    rows = zip(*columns, strict=True)
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "rows": int(n)}
        for name, (p, r, f, n) in zip(names, rows, strict=True)
    }


def hot(rows: Sequence[Sequence[str]], labels: Sequence[str]) -> np.ndarray:
    """Which of the labels each row has, as 0 and 1 (N, C)."""
    return np.array([[label in row for label in labels] for row in rows], int)


def multi_label_scores(
    truth: Sequence[Sequence[str]], found: Sequence[Sequence[str]], labels: Sequence[str]
) -> dict[str, float]:
    """As for single labels; accuracy counts the rows whose labels are all right."""
    sklearn = library("sklearn.metrics")
    left, right = hot(truth, labels), hot(found, labels)
    # scikit-learn takes a single column for two classes, 0 and 1.
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
    """As `class_scores`, where a row has several labels."""
    columns = zip(hot(truth, labels).T, hot(found, labels).T, strict=True)
    words = [[["yes" if has else "no" for has in side] for side in pair] for pair in columns]
    return {
        label: class_scores(left, right, ["yes"])["yes"]
        for label, (left, right) in zip(labels, words, strict=True)
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


def entity_scores(
    truth: Sequence[Sequence[str]], found: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and the number of right entities (rows) of each type of entity."""
    both = [
        [[tag[:1].translate(MARKS) + tag[1:] for tag in tags] for tags in rows]
        for rows in (truth, found)
    ]
    names = sorted({tag[2:] for rows in both for tags in rows for tag in tags if tag != "O"})
    score = library("seqeval.metrics.sequence_labeling").precision_recall_fscore_support
    return by_name(names, score(*both, average=None, zero_division=0)) if names else {}


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


def six_digits(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in scores.items()}


def confusion(truth: Sequence[str], found: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Counts (C, C): rows are what is right, columns what was said."""
    return library("sklearn.metrics").confusion_matrix(truth, found, labels=list(labels))


def baseline_answers(
    texts: Sequence[str], labels: Sequence[Sequence[str]], others: Sequence[str], several: bool
) -> dict[str, list[tuple[str, ...]]]:
    """What two models learned from labelled texts without a network say of other texts.

    `majority` gives every text the most frequent label, or with `several` those that most texts
    have; `tfidf_logistic_regression` weighs words, characters and pairs of them. Of many labels it
    learns one against the rest, from as many rows as can be done in seconds.
    """
    counts = Counter(label for row in labels for label in row)
    most = tuple(label for label, n in counts.items() if 2 * n > len(labels))
    most = most if several else (max(counts, key=lambda label: counts[label]),)
    found = {"majority": [most] * len(others)}
    names = list(counts)
    rows = slice(max(1, MOST_DECISIONS // len(names)))
    vectorizer = library("sklearn.feature_extraction.text").TfidfVectorizer(
        token_pattern=TERM, ngram_range=(1, 2), sublinear_tf=True, max_features=MOST_TERMS
    )
    try:
        left = vectorizer.fit_transform(texts[rows])
    except ValueError:  # no text has a word
        return found
    right, linear = vectorizer.transform(others), library("sklearn.linear_model")
    if len(names) <= FEW_LABELS:
        model = linear.LogisticRegression(C=10, max_iter=200, tol=1e-3)
    else:
        model = linear.SGDClassifier("log_loss", alpha=1e-6, max_iter=5, tol=None, random_state=0)
    if not several:
        model.fit(left, [row[0] for row in labels[rows]])
        answers = [(str(label),) for label in model.predict(right)]
    else:
        targets, chosen = hot(labels[rows], names).T, []
        for name, target in zip(names, targets, strict=True):
            same = target.min() == target.max()
            says = (
                np.full(len(others), target[0]) if same else model.fit(left, target).predict(right)
            )
            chosen.append([name if said else "" for said in says])
        answers = [tuple(filter(None, row)) for row in zip(*chosen, strict=True)]
    return found | {"tfidf_logistic_regression": answers}


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


def neighbour_answers(
    texts: Sequence[str], answers: Sequence[str], others: Sequence[str]
) -> list[str]:
    """For each of `others` the answer to the text that is nearest to it by TF-IDF of its words."""
    vectorizer = library("sklearn.feature_extraction.text").TfidfVectorizer(token_pattern=TERM)
    try:
        known = vectorizer.fit_transform(texts)
    except ValueError:  # no text has a word
        return [answers[0]] * len(others)
    asked = vectorizer.transform(others)
    found = []
    for first in range(0, len(others), 256):
        near = asked[first : first + 256] @ known.T
        found += [answers[i] for i in np.asarray(near.argmax(axis=1)).reshape(-1).tolist()]
    return found
