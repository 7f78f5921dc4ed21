"""A tag for every word of a text: names of people and places, parts of speech."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.config import DataConfig
from jaxlm.data.sources import DataError
from jaxlm.ops.losses import target_sums
from jaxlm.tasks.examples import Example, Item, as_label, field_of, is_gap
from jaxlm.tasks.metrics import are_entities, entity_scores, tag_scores
from jaxlm.tasks.row_task import Answer, RowTask
from jaxlm.tasks.task import Arrays, Outputs, RowObjective, Scores, Sums
from jaxlm.tokenizer.encoding import IDEOGRAPHS

IS_CHINESE = re.compile(f"[{IDEOGRAPHS}]")
# Of running text: a Chinese character, other letters and digits together, or a punctuation mark.
WORD = re.compile(f"[{IDEOGRAPHS}]|[^\\W{IDEOGRAPHS}]+|[^\\w\\s]")


def tag_losses(outputs: Outputs, batch: Arrays) -> Sums:
    """Cross-entropy at the first token of each word."""
    return target_sums(outputs, batch["targets"], batch["weights"])


class TokenClassificationTask(RowTask):
    """Tagging of words, each by the first of its tokens; long texts go through in several parts."""

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
        value = field_of(where, row, data.text_column, "text_column")
        if not labelled:
            words = texts_in(where, value) if isinstance(value, list) else words_of(str(value))
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
    def lists(cls, data: DataConfig, problem: str) -> tuple[str | None, ...]:
        return data.text_column, data.label_column

    @classmethod
    def labels_in(cls, item: Item) -> Sequence[str]:
        return item.label or ()

    def encode(self, items: Sequence[Item], labelled: bool = True) -> list[Example]:
        texts = [text for item in items for text in spaced(item.content)]
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
        starts = self.joiner.before + np.cumsum([0, *(len(ids) for _, ids in part[:-1])])
        words = [word for word, _ in part]
        arrays = self.tokens(joined.ids, joined.types)
        if labelled:
            targets, weights = np.zeros(len(joined.ids), np.int32), np.zeros(len(joined.ids))
            targets[starts] = [self.labels.index(item.label[word]) for word in words]
            weights[starts] = 1
            arrays |= {"targets": targets, "weights": weights.astype(np.float32)}
        return Example(arrays, {}, i, note=(words, starts))

    def answer(
        self, items: Sequence[Item], outputs: Sequence[tuple[Example, Outputs]]
    ) -> list[Answer]:
        """The `words`, their `tags`, and where the tags are those of entities, `entities`."""
        tags = [[""] * len(item.content) for item in items]
        for example, logits in outputs:
            words, starts = example.note
            best = np.asarray(logits)[starts].argmax(axis=-1)
            for word, label in zip(words, best, strict=True):
                tags[example.item][word] = self.labels[label]
        answers = []
        for item, found in zip(items, tags, strict=True):
            answer: dict[str, Any] = {"words": list(item.content), "tags": found}
            if are_entities(self.labels):
                answer["entities"] = entities(item.content, found)
            answers.append(answer)
        return answers

    def label_pairs(
        self, items: Sequence[Item], answers: Sequence[Answer]
    ) -> tuple[list[str], list[str]] | None:
        truth = [tag for item in items for tag in item.label]
        return truth, [tag for answer in answers for tag in answer["tags"]]

    def by_class(self, items: Sequence[Item], answers: Sequence[Answer]) -> dict[str, Scores]:
        """By type of entity where the tags are those of entities, else by tag."""
        if not are_entities(self.labels):
            return super().by_class(items, answers)
        return entity_scores([i.label for i in items], [answer["tags"] for answer in answers])

    def score_answers(self, items: Sequence[Item], answers: Sequence[Answer]) -> Scores:
        return tag_scores(
            [item.label for item in items], [answer["tags"] for answer in answers], self.labels
        )


def texts_in(where: str, value: Any) -> list[str]:
    """The texts of a list, or those between the spaces of one; DataError for null."""
    if not isinstance(value, list):
        return str(value).split()
    if None in value:
        raise DataError(f"{where} has null in a list of words or tags")
    return [str(text) for text in value]


def words_of(text: str) -> list[str]:
    """The words of a text without tags: between spaces, as training has them, if not Chinese."""
    apart = text.split()
    return apart if len(apart) > 1 and not IS_CHINESE.search(text) else WORD.findall(text)


def spaced(words: Sequence[str]) -> list[str]:
    """Words as they stand in running text: a space before each that is not Chinese nor the first.

    A vocabulary that knows of spaces has other tokens for a word after one.
    """
    texts = list(words[:1])
    for before, word in itertools.pairwise(words):
        chinese = IS_CHINESE.search(before[-1:] + word[:1])
        texts.append(word if chinese else f" {word}")
    return texts


def entities(words: Sequence[str], tags: Sequence[str]) -> list[dict[str, str]]:
    """The entities that B-, I-, E- and S- tags mark, with their type and text."""
    found: list[tuple[str, list[int]]] = []
    open_kind = None
    for i, tag in enumerate(tags):
        mark, _, kind = tag.partition("-")
        if mark in ("B", "S", "U") or (kind and kind != open_kind):
            found.append((kind, []))
        if kind:
            found[-1][1].append(i)
        open_kind = kind if mark in ("B", "I") else None
    return [
        {"type": kind, "text": "".join(spaced([words[i] for i in places]))}
        for kind, places in found
    ]
