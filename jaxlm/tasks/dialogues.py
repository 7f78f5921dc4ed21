"""Dialogues, of which a decoder learns the replies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array

from jaxlm.config import DataConfig
from jaxlm.data.errors import DataError
from jaxlm.ops.losses import target_sums
from jaxlm.tasks.examples import Example, Item
from jaxlm.tasks.task import Outputs, Sums, Task, field_of
from jaxlm.tokenizer.chat import dialogue_ids, reply_ids, with_dialogues

ROLES = ("user", "assistant")


class DialogueTask(Task):
    """Replies of a dialogue, predicted token by token; what others say is only read."""

    head = "lm"
    inputs = ()  # padding stands behind a row's tokens, where none of them looks

    def __post_init__(self):
        self.tokenizer = with_dialogues(self.tokenizer)
        super().__post_init__()

    @property
    def metrics(self) -> tuple[str, ...]:
        return ()

    @classmethod
    def read(
        cls, where: str, row: Mapping[str, Any], data: DataConfig, problem: str, labelled: bool
    ) -> Item | None:
        """Turns as texts, of which the user says the first, or as messages with their roles."""
        value = field_of(where, row, data.text_column, "text_column")
        if not isinstance(value, list):
            raise DataError(
                f"{where} holds {value!r} in column {data.text_column!r} where a list of turns "
                "should be"
            )
        turns = []
        for i, turn in enumerate(value):
            if isinstance(turn, str):
                turn = {"role": ROLES[i % 2], "content": turn}
            if not isinstance(turn, Mapping) or not {"role", "content"} <= turn.keys():
                raise DataError(f"{where} holds {turn!r} where a turn should be")
            turns.append({"role": str(turn["role"]), "content": str(turn["content"])})
        if not any(turn["role"] == "assistant" and turn["content"].strip() for turn in turns):
            return None
        return Item(where, tuple(turn["content"] for turn in turns), turns)

    def encode(self, items: Sequence[Item], labelled: bool = True) -> list[Example]:
        examples = []
        for i, item in enumerate(items):
            turns = item.label
            ids, learned = self._tokens(turns)
            self.notes[f"dialogues longer than {self.limit} tokens, cut"] += (
                len(ids) > self.limit + 1
            )
            # The oldest turns go first; then the end.
            while len(ids) > self.limit + 1 and len(turns) > 3:
                turns = turns[2:] if turns[0]["role"] != "system" else [turns[0], *turns[3:]]
                ids, learned = self._tokens(turns)
            ids, learned = ids[: self.limit + 1], learned[: self.limit + 1]
            if not any(learned[1:]):
                self.notes["dialogues whose first turn leaves no room for a reply, left out"] += 1
                continue
            arrays = {
                "ids": np.array(ids[:-1], np.int32),
                "targets": np.array(ids[1:], np.int32),
                "weights": np.array(learned[1:], np.float32),
            }
            examples.append(Example(arrays, {}, i))
        return examples

    def _tokens(self, turns: Sequence[Mapping[str, str]]) -> tuple[list[int], list[bool]]:
        """All tokens of a dialogue, and which of them belong to replies."""
        ids: list[int] = []
        learned: list[bool] = []
        for i, turn in enumerate(turns):
            if turn["role"] == "assistant":
                before = dialogue_ids(self.tokenizer, turns[:i])
                reply = reply_ids(self.tokenizer, turns[: i + 1])
                learned += [False] * (len(before) - len(ids)) + [True] * len(reply)
                ids = before + reply
        return ids, learned

    def losses(self, outputs: Outputs, batch: Mapping[str, Array]) -> Sums:
        """Cross-entropy of the tokens of the replies."""
        return target_sums(outputs, batch["targets"], batch["weights"])

    def answer(
        self, items: Sequence[Item], outputs: Sequence[tuple[Example, Outputs]]
    ) -> list[dict[str, Any]]:
        return [{} for _ in items]

    def score(
        self, items: Sequence[Item], answers: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        return {}
