"""Simple models that learn from the same rows, to compare a network with."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.tasks.metrics import are_entities, entity_spans, library, multi_hot
from jaxlm.tokenizer.characters import IDEOGRAPHS

# Chinese characters and other words, which TF-IDF counts as unigrams and bigrams.
TERM = f"[{IDEOGRAPHS}]|[^\\W{IDEOGRAPHS}]+"
MOST_TERMS, MOST_DECISIONS = 50_000, 5_000_000  # decisions: training rows times labels
FEW_LABELS = 20  # the most labels that one logistic regression is fitted to


def baseline_answers(
    texts: Sequence[str], labels: Sequence[Sequence[str]], others: Sequence[str], several: bool
) -> dict[str, list[tuple[str, ...]]]:
    """The labels that two simple models, fitted to labelled texts, give to other texts.

    `majority` gives every text the most frequent label, or with `several` all labels that most
    texts have. `tfidf_logistic_regression` uses words, Chinese characters and bigrams; for many
    labels it is one-against-rest, fitted to fewer rows so that it takes seconds.
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
        targets, chosen = multi_hot(labels[rows], names).T, []
        for name, target in zip(names, targets, strict=True):
            same = target.min() == target.max()
            says = (
                np.full(len(others), target[0]) if same else model.fit(left, target).predict(right)
            )
            chosen.append([name if said else "" for said in says])
        answers = [tuple(filter(None, row)) for row in zip(*chosen, strict=True)]
    return found | {"tfidf_logistic_regression": answers}


def dictionary_tags(
    learned: Sequence[tuple[Sequence[str], Sequence[str]]], others: Sequence[Sequence[str]]
) -> list[list[str]]:
    """The tags of other texts by a dictionary of tagged phrases: the longest match from the left.

    `learned` are words with their tags. Of entities the dictionary has the whole phrase, of other
    tags single words, each with its most frequent tags. A phrase that is more often wrong than
    right in the learned texts is left out.
    """
    counts: dict[tuple[str, ...], Counter[tuple[str, ...]]] = {}
    whole = are_entities([tag for _, tags in learned for tag in tags])
    for words, tags in learned:
        spans = entity_spans(tags) if whole else [("", i, i + 1) for i in range(len(tags))]
        for _, start, stop in spans:
            phrase = counts.setdefault(tuple(words[start:stop]), Counter())
            phrase[tuple(tags[start:stop])] += 1
    known = {phrase: found.most_common(1)[0][0] for phrase, found in counts.items()}
    right: Counter[tuple[str, ...]] = Counter()
    for words, tags in learned:
        for start, phrase in matches(words, known):
            same = tuple(tags[start : start + len(phrase)]) == known[phrase]
            right[phrase] += 1 if same else -1
    known = {phrase: tags for phrase, tags in known.items() if right[phrase] >= 0}
    plain = (
        "O" if whole else Counter(tag for _, tags in learned for tag in tags).most_common(1)[0][0]
    )
    answers = [[plain] * len(words) for words in others]
    for words, tags in zip(others, answers, strict=True):
        for start, phrase in matches(words, known):
            tags[start : start + len(phrase)] = known[phrase]
    return answers


def matches(
    words: Sequence[str], known: Mapping[tuple[str, ...], Any]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Where known phrases stand in a text, the longest at each place, from left to right."""
    longest, start = max(map(len, known), default=0), 0
    while start < len(words):
        phrases = (tuple(words[start : start + n]) for n in range(longest, 0, -1))
        phrase = next((phrase for phrase in phrases if phrase in known), None)
        if phrase is not None:
            yield start, phrase
        start += len(phrase or " ")


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
