"""Extractive question answering: the answer is a passage of the context."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxlm.config import DataConfig
from jaxlm.data.sources import DataError
from jaxlm.ops.reductions import cross_entropy
from jaxlm.tasks.examples import Example, Item
from jaxlm.tasks.fields import as_label, field_of, text_field
from jaxlm.tasks.metrics import answer_scores
from jaxlm.tasks.row_task import Answer, RowTask
from jaxlm.tasks.task import Arrays, Outputs, RowObjective, Scores, Sums

# Trimmed off both ends of an answer: whitespace and zero-width characters.
EDGE = "[\\s\u200b-\u200f\u2060\ufeff]*"
INNER = re.compile(f"{EDGE}(.*?){EDGE}", re.DOTALL)
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class AnswerPlace(NamedTuple):
    """A correct answer and the character where it starts in the context."""

    text: str
    start: int


def span_losses(outputs: Outputs, batch: Arrays) -> Sums:
    """The mean of the cross-entropies of start and end over the context's tokens."""
    losses = 0.0
    for logits, name in zip(outputs, ("start", "end"), strict=True):
        allowed = np.float32(-1e9) * (1 - batch["allowed"])
        losses += cross_entropy(logits + allowed, batch[name]) / 2
    weights = batch["weights"]
    return {"loss": (losses * weights).sum(), "count": weights.sum()}


class QuestionAnsweringTask(RowTask):
    """Where an answer starts and ends in the context; start = end = 0 means no answer.

    Long contexts are processed in windows that overlap by `task.stride` tokens.
    """

    heads = ("question_answering",)
    columns = ("question", "context", "answers")

    def make_objective(self) -> RowObjective:
        return RowObjective(span_losses)

    @property
    def metrics(self) -> tuple[str, ...]:
        return "f1", "exact_match"

    @classmethod
    def read(
        cls, where: str, row: Mapping[str, Any], data: DataConfig, problem: str, labelled: bool
    ) -> Item | None:
        question = text_field(where, row, data.text_column, "text_column")
        # Answers count the characters of a context, so it is not stripped, and each lone surrogate,
        # which UTF-8 cannot hold, is replaced by one character.
        context = text_field(where, row, data.pair_column, "pair_column", strip=False)
        context = LONE_SURROGATE.sub("\ufffd", context)
        if not question or not context.strip():
            return None
        label = None
        if labelled:
            value = field_of(where, row, data.label_column, "label_column")
            label = tuple(read_answers(where, value, context))
        return Item(where, (question, context), label)

    @classmethod
    def exact(cls, data: DataConfig) -> tuple[str | None, ...]:
        return data.pair_column, data.label_column

    @classmethod
    def group(cls, item: Item) -> object:
        return item.content[1]

    def encode(self, items: Sequence[Item], labelled: bool = True) -> list[Example]:
        questions = self.tokenizer.encode_batch([item.content[0] for item in items])
        contexts = self.tokenizer.encode_with_offsets([item.content[1] for item in items])
        examples = []
        for i, (item, question) in enumerate(zip(items, questions, strict=True)):
            ids, offsets = contexts[i]
            # A question may take at most half of the room.
            most = max(0, self.joiner.room([])) // 2
            self.notes["questions_cut"] += len(question) > most
            question = question[:most]
            room = self.joiner.room(question)
            step = max(1, room - min(self.options.stride, room // 2))
            starts = range(0, max(1, len(ids) - room + step), step)
            self.notes["contexts_in_windows"] += len(starts) > 1
            first, last = answer_tokens(item, offsets)
            held = False
            for start in starts:
                window = slice(start, start + room)
                joined = self.joiner.two(question, ids[window])
                arrays = self.tokens(joined.ids, joined.types)
                # Answers are only in the context, or at token 0 for none.
                inside = np.zeros(len(joined.ids), np.int32)
                inside[joined.second : joined.second + len(ids[window])] = 1
                inside[0] = 1
                note = (joined.second, offsets[window])
                whole = start <= first and last < start + room
                held |= whole
                shift = joined.second - start
                place = (first + shift, last + shift) if whole else (0, 0)
                row = span_target(*place) if labelled else {}
                examples.append(Example(arrays | {"allowed": inside}, row, i, note))
            self.notes["answers_in_no_window"] += bool(item.label) and not held
        return examples

    def answer(
        self, items: Sequence[Item], outputs: Sequence[tuple[Example, Outputs]]
    ) -> list[Answer]:
        """The `answer`, its `start` in the context, and its `score` above that of no answer.

        An empty answer, with start -1, means that there is none. The score is None for a context
        without tokens.
        """
        best = [(-np.inf, "", -1)] * len(items)
        nothing = [np.inf] * len(items)
        for example, (start_logits, end_logits) in outputs:
            second, offsets = example.note
            i, context = example.item, items[example.item].content[1]
            starts, ends = (np.asarray(x, np.float64) for x in (start_logits, end_logits))
            nothing[i] = min(nothing[i], starts[0] + ends[0])
            if not offsets:
                continue
            window = slice(second, second + len(offsets))
            sums = starts[window, None] + ends[None, window]
            longest = self.options.max_answer_tokens
            allowed = np.triu(np.ones_like(sums)) - np.triu(np.ones_like(sums), longest)
            sums = np.where(allowed > 0, sums, -np.inf)
            a, b = np.unravel_index(int(sums.argmax()), sums.shape)
            if sums[a, b] > best[i][0]:
                text, first = trimmed(context[offsets[a][0] : offsets[b][1]], offsets[a][0])
                best[i] = (float(sums[a, b]), text, first)
        answers = []
        for (score, text, start), none in zip(best, nothing, strict=True):
            found = score > none and text
            answers.append(
                {
                    "answer": text if found else "",
                    "start": start if found else -1,
                    "score": score - none if np.isfinite(score) else None,
                }
            )
        return answers

    def score_answers(self, items: Sequence[Item], answers: Sequence[Answer]) -> Scores:
        truth = [[place.text for place in item.label] for item in items]
        return answer_scores(truth, [answer["answer"] for answer in answers])


def trimmed(text: str, start: int) -> tuple[str, int]:
    """A passage without whitespace at its ends, and its new start."""
    inner = INNER.fullmatch(text)
    return (inner[1], start + inner.start(1)) if inner else (text, start)


def span_target(start: int, end: int) -> dict[str, Any]:
    """The target of a window: the tokens where the answer starts and ends, 0 for no answer."""
    return {"start": np.int32(start), "end": np.int32(end), "weights": np.float32(1)}


def answer_tokens(item: Item, offsets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The first and last token of the first correct answer; -1 without one."""
    if not item.label:
        return -1, -1
    text, start = item.label[0]
    inside = [i for i, (a, b) in enumerate(offsets) if a < start + len(text) and b > start]
    return (inside[0], inside[-1]) if inside else (-1, -1)


def read_answers(where: str, value: Any, context: str) -> list[AnswerPlace]:
    """Answers from SQuAD's mapping (`text`, `answer_start`), a list of such, or a text.

    Null and blank texts are not answers.

    Raises: DataError for an answer that is not in the context.
    """
    return [place_of(where, text, start, context) for text, start in pairs_of(where, value)]


def pairs_of(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The texts of answers, each with its start as the row gives it, or None."""
    if isinstance(value, Mapping):
        if "text" not in value:
            raise DataError(f"{where} holds {value!r} where an answer should be: it has no 'text'")
        texts, starts = (
            found if isinstance(found, list) else [] if found is None else [found]
            for found in (value["text"], value.get("answer_start"))
        )
        for i, text in enumerate(texts):
            if text is None:
                continue
            if isinstance(text, list | Mapping):
                raise DataError(f"{where} holds {text!r} where the text of an answer should be")
            # A year may come as a number.
            text = text if isinstance(text, str) else str(as_label(text))
            if text.strip():
                yield text, starts[i] if i < len(starts) else None
        return
    for entry in value if isinstance(value, list) else [value]:
        yield from pairs_of(where, entry if isinstance(entry, Mapping) else {"text": entry})


def place_of(where: str, text: str, start: Any, context: str) -> AnswerPlace:
    """A trimmed answer and its place in the context."""
    text = LONE_SURROGATE.sub("\ufffd", text)
    if start is None:
        start = context.find(text)
    try:
        place = int(start)
        whole = place == float(start) and not isinstance(start, bool)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise DataError(f"{where}: answer_start is {start!r}, which is no whole number")
    inner, first = trimmed(text, place)
    if place < 0 or not context.startswith(text, place) or not inner:
        raise DataError(f"{where}: the answer {text!r} is not in the context at that place")
    return AnswerPlace(inner, first)
