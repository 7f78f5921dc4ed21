"""A tag for every word of a text, such as named entities or parts of speech."""

import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.config import DataConfig
from jaxlm.data import clean
from jaxlm.data.sources import DataError
from jaxlm.ops.reductions import target_sums
from jaxlm.tasks.baselines import dictionary_tags
from jaxlm.tasks.examples import Example, Item
from jaxlm.tasks.fields import as_label, field_of, is_gap
from jaxlm.tasks.metrics import are_entities, entity_scores, entity_spans, tag_scores
from jaxlm.tasks.row_task import Answer, RowTask
from jaxlm.tasks.task import Arrays, Outputs, RowObjective, Scores, Sums
from jaxlm.tokenizer.characters import IDEOGRAPHS

IS_CHINESE = re.compile(f"[{IDEOGRAPHS}]")
# In running text: a Chinese character, a full-width mark, or other characters between spaces.
MARKS = "\u2014\u2026\u201c\u201d\u3000-\u303f\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
RUN = re.compile(f"[{IDEOGRAPHS}{MARKS}]|[^\\s{IDEOGRAPHS}{MARKS}]+")
ABBREVIATION = re.compile(r"([^\W\d_]\.)+")  # its last full stop is part of the word


def tag_losses(outputs: Outputs, batch: Arrays) -> Sums:
    """Cross-entropy at the token that stands for each word."""
    return target_sums(outputs, batch["targets"], batch["weights"])


class TokenClassificationTask(RowTask):
    """Tagging of words; long texts are processed in parts.

    A word's tag is predicted at its first token by an encoder and at its last by a decoder, which
    has not seen the whole word before.
    """

    heads = ("token_classification",)
    columns = ("tokens", None, "tags")
    is_classifier = True
    libraries = ("sklearn.metrics", "seqeval.metrics")

    def make_objective(self) -> RowObjective:
        return RowObjective(tag_losses)

    @property
    def metrics(self) -> tuple[str, ...]:
        if are_entities(self.labels):
            return "entity_f1", "entity_precision", "entity_recall", "accuracy"
        return "macro_f1", "accuracy", "micro_f1"

    @classmethod
    def read(
        cls, where: str, row: Mapping[str, Any], data: DataConfig, problem: str, labelled: bool
    ) -> Item | None:
        """Words with their tags; for text without tags, its words, with their offsets as label."""
        value = field_of(where, row, data.text_column, "text_column")
        if not labelled and isinstance(value, str):
            places = word_places(value)
            words = tuple(clean(value[a:b], data.normalize) for a, b in places)
            return Item(where, words, places) if words else None
        if not labelled:
            words = texts_in(where, value)
            return Item(where, tuple(words), None) if words else None
        words = texts_in(where, value)
        if not words:
            return None
        value_of_tags = field_of(where, row, data.label_column, "label_column")
        if is_gap(value_of_tags):
            return Item(where, tuple(words), None)
        tags = [str(as_label(tag)) for tag in texts_in(where, as_label(value_of_tags))]
        if isinstance(value, str) and len(words) != len(tags):
            words = [c for c in value if not c.isspace()]  # a tag for each character
        if len(words) != len(tags):
            raise DataError(f"{where} has {len(tags)} tags for {len(words)} words")
        return Item(where, tuple(words), tuple(tags))

    @classmethod
    def exact(cls, data: DataConfig) -> tuple[str | None, ...]:
        # The answer to a text without tags counts its characters.
        return (data.text_column,) if data.label_column is None else ()

    @classmethod
    def lists(cls, data: DataConfig, problem: str) -> tuple[str | None, ...]:
        return data.text_column, data.label_column

    @classmethod
    def labels_in(cls, item: Item) -> Sequence[str]:
        return item.label or ()

    def encode(self, items: Sequence[Item], labelled: bool = True) -> list[Example]:
        # Some tokenizers add a space before every text, and so before every word.
        own = self.tokenizer.opens_with_space
        texts = [text for i in items for text in (i.content if own else spaced(i.content))]
        pieces = iter(self.tokenizer.encode_batch(texts))
        unknown = [self.tokenizer.unk_id or 0]
        room = self.joiner.room()
        examples = []
        for i, item in enumerate(items):
            parts: list[list[tuple[int, list[int]]]] = [[]]
            length = 0
            for word in range(len(item.content)):
                ids = (next(pieces) or unknown)[:room]
                if length + len(ids) > room:
                    parts.append([])
                    length = 0
                parts[-1].append((word, ids))
                length += len(ids)
            self.notes["texts_in_parts"] += len(parts) > 1
            examples += [self._example(i, item, part, labelled) for part in parts]
        return examples

    def _example(
        self, i: int, item: Item, part: list[tuple[int, list[int]]], labelled: bool
    ) -> Example:
        joined = self.joiner.one([token for _, ids in part for token in ids])
        ends = self.joiner.before + np.cumsum([len(ids) for _, ids in part])
        lengths = np.array([len(ids) for _, ids in part])
        read = ends - 1 if self.trunk == "decoder" else ends - lengths
        words = [word for word, _ in part]
        arrays = self.tokens(joined.ids, joined.types)
        if labelled:
            targets, weights = np.zeros(len(joined.ids), np.int32), np.zeros(len(joined.ids))
            targets[read] = [self.labels.index(item.label[word]) for word in words]
            weights[read] = 1
            arrays |= {"targets": targets, "weights": weights.astype(np.float32)}
        return Example(arrays, {}, i, note=(words, read))

    def answer(
        self, items: Sequence[Item], outputs: Sequence[tuple[Example, Outputs]]
    ) -> list[Answer]:
        """The `words`, their `tags`, and `entities` if the tags mark entities.

        Words of a text also have `offsets`, the characters where each starts and ends.
        """
        tags = [[""] * len(item.content) for item in items]
        chances = [np.zeros(len(item.content)) for item in items]
        for example, logits in outputs:
            words, read = example.note
            scores = np.asarray(logits, np.float64)[read]
            best = scores.argmax(axis=-1)
            parts = np.exp(scores - scores.max(axis=-1, keepdims=True)).sum(axis=-1)
            for word, label, part in zip(words, best, parts, strict=True):
                tags[example.item][word] = self.labels[label]
                chances[example.item][word] = 1 / part
        answers = []
        for item, found, sure in zip(items, tags, chances, strict=True):
            # The label of a text without tags is the offsets of its words.
            places = item.label if isinstance(item.label, list) else None
            answer: dict[str, Any] = {"words": list(item.content), "tags": found}
            if places is not None:
                answer["offsets"] = [list(place) for place in places]
            if are_entities(self.labels):
                answer["entities"] = entities(item.content, found, sure.tolist(), places)
            answers.append(answer)
        return answers

    def label_pairs(
        self, items: Sequence[Item], answers: Sequence[Answer]
    ) -> tuple[list[str], list[str]] | None:
        truth = [tag for item in items for tag in item.label]
        return truth, [tag for answer in answers for tag in answer["tags"]]

    def by_class(self, items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, Scores]:
        """By entity type if the tags mark entities, else by tag."""
        if not are_entities(self.labels):
            return super().by_class(items, answers)
        return entity_scores([i.label for i in items], [answer["tags"] for answer in answers])

    def baselines(self, items: Sequence[Item]) -> dict[str, Scores]:
        learned = [(item.content, item.label) for item in self.rows.train]
        answers = [{"tags": tags} for tags in dictionary_tags(learned, [i.content for i in items])]
        return {"dictionary": self.score_answers(items, answers)}

    def score_answers(self, items: Sequence[Item], answers: Sequence[Answer]) -> Scores:
        return tag_scores(
            [item.label for item in items], [answer["tags"] for answer in answers], self.labels
        )


def texts_in(where: str, value: Any) -> list[str]:
    """The texts in a list, or a text split at spaces; DataError for null in a list."""
    if not isinstance(value, list):
        return str(value).split()
    if None in value:
        raise DataError(f"{where} has null in a list of words or tags")
    return [str(text) for text in value]


def word_places(text: str) -> list[tuple[int, int]]:
    """Where the words of a text start and end; punctuation at their edges is separate."""
    places = []
    for run in RUN.finditer(text):
        start, end = run.span()
        while start < end and is_mark(text[start]):
            places.append((start, start + 1))
            start += 1
        behind = []
        while (
            start < end and is_mark(text[end - 1]) and not ABBREVIATION.fullmatch(text, start, end)
        ):
            end -= 1
            behind.append((end, end + 1))
        places += [(start, end)] * (start < end) + behind[::-1]
    return places


def is_mark(character: str) -> bool:
    """Whether a character is punctuation or a sign."""
    return unicodedata.category(character)[0] in "PS"


def spaced(words: Sequence[str]) -> list[str]:
    """Words as in running text: with a space before each, except the first and Chinese ones.

    A vocabulary with spaces in its tokens has other tokens for a word after a space.
    """
    texts = list(words[:1])
    for before, word in itertools.pairwise(words):
        chinese = IS_CHINESE.search(before[-1:] + word[:1])
        texts.append(word if chinese else f" {word}")
    return texts


def entities(
    words: Sequence[str],
    tags: Sequence[str],
    chances: Sequence[float],
    places: Sequence[tuple[int, int]] | None = None,
) -> list[dict[str, Any]]:
    """The entities that B-, I-, E- and S- tags mark: `type`, `text` and `score`.

    The score is the mean of the `chances` of the words' tags. With the `places` of the words in the
    text, also `start` and `end`, in characters.
    """
    rows = []
    for kind, start, stop in entity_spans(tags):
        row: dict[str, Any] = {"type": kind, "text": "".join(spaced(words[start:stop]))}
        if places is not None:
            row |= {"start": places[start][0], "end": places[stop - 1][1]}
        rows.append(row | {"score": round(float(np.mean(chances[start:stop])), 6)})
    return rows
