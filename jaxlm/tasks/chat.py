"""Dialogues, of which a decoder learns the replies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.config import DataConfig
from jaxlm.data.sources import DataError
from jaxlm.generation import Chat
from jaxlm.ops.losses import target_sums
from jaxlm.tasks.examples import Example, Item, field_of
from jaxlm.tasks.row_task import Answer, RowTask
from jaxlm.tasks.task import Arrays, Outputs, RowObjective, Scores, Sums
from jaxlm.tokenizer import Tokenizer
from jaxlm.tokenizer.chat import dialogue_ids, reply_ids, with_dialogues

ROLES = ("user", "assistant")


def reply_losses(outputs: Outputs, batch: Arrays) -> Sums:
    """Cross-entropy of the tokens of the replies."""
    return target_sums(outputs, batch["targets"], batch["weights"])


class ChatTask(RowTask):
    """Replies of a dialogue, predicted token by token; the other turns are only read."""

    architecture = "decoder"
    heads = ("lm",)
    columns = ("turns", None, None)

    def __init__(self, tokenizer: Tokenizer, limit: int, *args: Any, **keywords: Any):
        super().__init__(with_dialogues(tokenizer), limit, *args, **keywords)

    def make_objective(self) -> RowObjective:
        # Padding stands behind a row's tokens, where none of them looks: no mask is needed.
        return RowObjective(reply_losses, inputs=())

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
            self.notes["dialogues_cut"] += len(ids) > self.limit + 1
            # The oldest turns go first; then the end.
            while len(ids) > self.limit + 1 and len(turns) > 3:
                turns = turns[2:] if turns[0]["role"] != "system" else [turns[0], *turns[3:]]
                ids, learned = self._tokens(turns)
            ids, learned = ids[: self.limit + 1], learned[: self.limit + 1]
            if not any(learned[1:]):
                self.notes["dialogues_without_reply"] += 1
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

    def answer(
        self, items: Sequence[Item], outputs: Sequence[tuple[Example, Outputs]]
    ) -> list[Answer]:
        return [{} for _ in items]

    def score_answers(self, items: Sequence[Item], answers: Sequence[Answer]) -> Scores:
        return {}

    def samples(self, loaded: Loaded, step: int) -> list[tuple[str, str]]:
        """Replies to the config's prompts, or to the first turn of the data."""
        sample = self.config.sample
        options: dict[str, Any] = {"seed": self.config.run.seed + step}
        for name in ("max_new_tokens", "temperature", "top_k", "top_p"):
            options[name] = getattr(sample, name)
        first = (self.rows.val or self.rows.train)[0]
        prompts = sample.prompts or (first.content[0],)
        return [(prompt, "".join(Chat(loaded, **options).reply(prompt))) for prompt in prompts]
