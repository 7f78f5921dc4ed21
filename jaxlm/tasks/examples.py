"""Rows as items, items as examples of tokens, and examples as batches of few shapes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxlm.data.batches import Batch, padded_length

# What was left out or cut, counted by key; in words for the first line of a run.
NOTES = {
    "rows_without_text": "rows without text, left out",
    "rows_sharing_context": "rows left out, as rows held out share their context",
    "held_out_repeats": "rows held out that repeat one to train on",
    "texts_cut": "texts longer than {limit} tokens, cut at their end",
    "texts_in_parts": "texts longer than {limit} tokens, gone through in parts",
    "questions_cut": "questions longer than half of {limit} tokens, cut at their end",
    "contexts_in_windows": "contexts longer than {limit} tokens, gone through in windows",
    "answers_in_no_window": "answers that no window holds, taken for none",
    "dialogues_cut": "dialogues longer than {limit} tokens, cut",
    "dialogues_without_reply": "dialogues whose first turn leaves no room for a reply, left out",
}


def notes_in_words(notes: Mapping[str, int], limit: int) -> list[str]:
    """A phrase for each count above 0; `limit` is the most tokens of an example."""
    phrases = {key: phrase.format(limit=limit) for key, phrase in NOTES.items()}
    return [f"{count:,} {phrases[key]}" for key, count in notes.items() if count]


class Item(NamedTuple):
    """One row of the data: where it stands, what is read, and what is to be learned from it."""

    where: str
    content: tuple[str, ...]
    label: Any


@dataclass(frozen=True, eq=False)
class Example:
    """One row of a batch before padding.

    `tokens` are arrays with an entry a token, `ids` among them, `row` single values; `item` counts
    the items, of which a long one has several examples, and `note` leads from outputs to answers.
    """

    tokens: dict[str, np.ndarray]
    row: dict[str, Any]
    item: int
    note: Any = None

    def __len__(self) -> int:
        return len(self.tokens["ids"])


def collate(examples: Sequence[Example], length: int, pad: int, rows: int) -> Batch:
    """Arrays (B, T) and (B,) of examples padded to a length; rows that are missing weigh nothing.

    Adds `attention_mask` (B, T), 1 where there is a token; a missing row shows one, as attention
    over nothing is no number.
    """
    batch: Batch = {}
    for name, first in examples[0].tokens.items():
        array = np.full((rows, length), pad if name == "ids" else 0, first.dtype)
        for i, example in enumerate(examples):
            array[i, : len(example)] = example.tokens[name]
        batch[name] = array
    for name, first in examples[0].row.items():
        values = np.stack([np.asarray(example.row[name]) for example in examples])
        blank = np.zeros((rows - len(examples), *np.shape(first)), values.dtype)
        batch[name] = np.concatenate([values, blank])
    lengths = np.array([len(example) for example in examples] + [1] * (rows - len(examples)))
    batch["attention_mask"] = (np.arange(length) < lengths[:, None]).astype(np.int32)
    return batch


def in_batches(
    examples: Sequence[Example], size: int, limit: int, pad: int
) -> Iterator[tuple[Batch, list[Example]]]:
    """Every example once, those of like length together, with the batch that it is in."""
    order = np.argsort([len(example) for example in examples], kind="stable")
    for first in range(0, len(order), size):
        chosen = [examples[i] for i in order[first : first + size]]
        yield collate(chosen, padded_length(len(chosen[-1]), limit), pad, size), chosen
