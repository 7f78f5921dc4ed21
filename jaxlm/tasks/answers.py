"""Questions answered by a passage of a context."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from jaxlm.config import DataConfig
from jaxlm.data.errors import DataError
from jaxlm.ops.losses import cross_entropy
from jaxlm.tasks.examples import Example, Item
from jaxlm.tasks.metrics import answer_scores
from jaxlm.tasks.task import Outputs, Sums, Task, field_of, text_field


class Place(NamedTuple):
    """A right answer and the character where it starts in the context."""

    text: str
    start: int


class AnswerTask(Task):
    """Extraction of answers: where they start and end; nowhere is told by the first token.

    A context too long for the model goes through in windows that share `finetune.stride` tokens.
    """

    head = "question_answering"

    @property
    def metrics(self) -> tuple[str, ...]:
        return "f1", "exact_match"

    @classmethod
    def read(
        cls, where: str, row: Mapping[str, Any], data: DataConfig, problem: str, labelled: bool
    ) -> Item | None:
        question = text_field(where, row, data.text_column, "text_column")
        # Answers count its characters, so nothing is stripped off a context.
        context = str(field_of(where, row, data.pair_column, "pair_column"))
        if not question or not context.strip():
            return None
        label = None
        if labelled:
            value = field_of(where, row, data.label_column, "label_column")
            label = tuple(read_answers(where, value, context))
        return Item(where, (question, context), label)

    @classmethod
    def group(cls, item: Item) -> object:
        return item.content[1]

    def encode(self, items: Sequence[Item], labelled: bool = True) -> list[Example]:
        questions = self.tokenizer.encode_batch([item.content[0] for item in items])
        contexts = self.tokenizer.encode_with_offsets([item.content[1] for item in items])
        examples = []
        for i, (item, question) in enumerate(zip(items, questions, strict=True)):
            ids, offsets = contexts[i]
            # A long question leaves half of the room to the context.
            most = self.limit // 2
            self.notes[f"questions longer than {most} tokens, cut at their end"] += (
                len(question) > most
            )
            question = question[:most]
            room = self.joiner.room(question)
            step = max(1, room - self.options.stride)
            starts = range(0, max(1, len(ids) - room + step), step)
            self.notes[f"contexts longer than {self.limit} tokens, gone through in windows"] += (
                len(starts) > 1
            )
            for start in starts:
                window = slice(start, start + room)
                joined = self.joiner.two(question, ids[window])
                arrays = self.tokens(joined.ids, joined.types)
                # Only the context may hold an answer.
                inside = np.zeros(len(joined.ids), np.int32)
                inside[joined.second : joined.second + len(ids[window])] = 1
                inside[0] = 1
                note = (joined.second, offsets[window])
                row = self._target(item, *note) if labelled else {}
                examples.append(Example(arrays | {"allowed": inside}, row, i, note))
        return examples

    def _target(
        self, item: Item, second: int, offsets: Sequence[tuple[int, int]]
    ) -> dict[str, Any]:
        """The tokens where the first right answer starts and ends, if the window holds it."""
        start = end = 0
        if item.label:
            first, last = item.label[0].start, item.label[0].start + len(item.label[0].text)
            inside = [i for i, (a, b) in enumerate(offsets) if a < last and b > first]
            whole = inside and offsets[inside[0]][0] <= first and offsets[inside[-1]][1] >= last
            if whole:
                start, end = second + inside[0], second + inside[-1]
        return {"start": np.int32(start), "end": np.int32(end), "weights": np.float32(1)}

    def losses(self, outputs: Outputs, batch: Mapping[str, Array]) -> Sums:
        """The mean of the cross-entropies of start and end among the context's tokens."""
        apart = 0.0
        for logits, name in zip(outputs, ("start", "end"), strict=True):
            allowed = np.float32(-1e9) * (1 - batch["allowed"])
            apart += cross_entropy(logits + allowed, batch[name]) / 2
        weights = batch["weights"]
        return {"loss": (apart * weights).sum(), "count": weights.sum()}

    def answer(
        self, items: Sequence[Item], outputs: Sequence[tuple[Example, Outputs]]
    ) -> list[dict[str, Any]]:
        """The `answer`, where it starts in the context, and its `score` above that of none.

        An empty answer, with start -1, says that the context holds none.
        """
        best = [(-np.inf, "", -1)] * len(items)
        nothing = [np.inf] * len(items)
        for example, (start_logits, end_logits) in outputs:
            second, offsets = example.note
            i, context = example.item, items[example.item].content[1]
            starts, ends = (np.asarray(x, np.float64) for x in (start_logits, end_logits))
            nothing[i] = min(nothing[i], starts[0] + ends[0])
            window = slice(second, second + len(offsets))
            sums = starts[window, None] + ends[None, window]
            longest = self.options.max_answer_tokens
            allowed = np.triu(np.ones_like(sums)) - np.triu(np.ones_like(sums), longest)
            sums = np.where(allowed > 0, sums, -np.inf)
            a, b = np.unravel_index(int(sums.argmax()), sums.shape)
            if sums[a, b] > best[i][0]:
                first = offsets[a][0]
                best[i] = (float(sums[a, b]), context[first : offsets[b][1]], first)
        answers = []
        for (score, text, start), none in zip(best, nothing, strict=True):
            found = score > none
            answers.append(
                {
                    "answer": text if found else "",
                    "start": start if found else -1,
                    "score": score - none,
                }
            )
        return answers

    def score(
        self, items: Sequence[Item], answers: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        truth = [[place.text for place in item.label] for item in items]
        return answer_scores(truth, [answer["answer"] for answer in answers])


def read_answers(where: str, value: Any, context: str) -> list[Place]:
    """SQuAD's mapping or a list of mappings (`text`, `answer_start`), or the text of one answer."""
    if isinstance(value, Mapping):
        texts, starts = value.get("text", []), value.get("answer_start", [])
    elif isinstance(value, list):
        texts = [entry.get("text") if isinstance(entry, Mapping) else entry for entry in value]
        starts = [entry.get("answer_start") for entry in value if isinstance(entry, Mapping)]
    else:
        texts, starts = ([str(value)] if str(value) else []), []
    places = []
    for i, text in enumerate(texts):
        start = starts[i] if i < len(starts) else context.find(str(text))
        if not text or start is None or context[start : start + len(text)] != text:
            raise DataError(f"{where}: the answer {text!r} does not stand in the context there")
        places.append(Place(text, int(start)))
    return places
