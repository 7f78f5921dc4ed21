"""Fine-tuning on dialogues: a decoder learns the replies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.config import DataConfig
from jaxlm.data.rows import parse_json
from jaxlm.data.sources import DataError
from jaxlm.generation import Chat
from jaxlm.ops.reductions import target_sums
from jaxlm.tasks.examples import Example, Item
from jaxlm.tasks.fields import field_of
from jaxlm.tasks.row_task import Answer, RowTask
from jaxlm.tasks.task import Arrays, Outputs, RowObjective, Scores, Sums
from jaxlm.tokenizer import Tokenizer, TokenizerError
from jaxlm.tokenizer.chat import dialogue_with_replies, with_dialogues

ROLES = ("user", "assistant")
USUAL_COLUMNS = ("turns", "messages")  # default names of the column of dialogues


def reply_losses(outputs: Outputs, batch: Arrays) -> Sums:
    """Cross-entropy of the tokens in replies."""
    return target_sums(outputs, batch["targets"], batch["weights"])


class ChatTask(RowTask):
    """Next-token prediction of the replies in a dialogue, given all turns before."""

    architecture = "decoder"
    heads = ("lm",)
    columns = ("turns", None, None)
    optional = ("tools", "documents")

    def __init__(self, tokenizer: Tokenizer, limit: int, *args: Any, **keywords: Any):
        super().__init__(with_dialogues(tokenizer), limit, *args, **keywords)

    def make_objective(self) -> RowObjective:
        # Padding comes after a row's tokens, which cannot attend to it: no mask is needed.
        return RowObjective(reply_losses, inputs=(), of_head=True)

    @property
    def metrics(self) -> tuple[str, ...]:
        return ()

    @classmethod
    def read(
        cls, where: str, row: Mapping[str, Any], data: DataConfig, problem: str, labelled: bool
    ) -> Item | None:
        """Turns as texts, starting with the user's, or as messages with roles."""
        column = data.text_column
        if column in USUAL_COLUMNS and column not in row:
            column = next((name for name in USUAL_COLUMNS if name in row), column)
        value = field_of(where, row, column, "text_column")
        if not isinstance(value, list):
            raise DataError(
                f"{where} holds {value!r} in column {column!r} where a list of turns should be"
            )
        turns = [read_turn(where, i, turn) for i, turn in enumerate(value)]
        if not any(turn["role"] == "assistant" and turn["content"].strip() for turn in turns):
            return None
        shown = [name for name in cls.optional if row.get(name)]
        given = tuple((name, given_list(where, name, row)) for name in shown)
        return Item(where, tuple(turn["content"] for turn in turns), turns, given)

    @classmethod
    def lists(cls, data: DataConfig, problem: str) -> tuple[str | None, ...]:
        return (data.text_column, *USUAL_COLUMNS, *cls.optional)

    def encode(self, items: Sequence[Item], labelled: bool = True) -> list[Example]:
        examples = []
        for i, item in enumerate(items):
            turns = item.label
            ids, learned = self._tokens(item, turns)
            self.notes["dialogues_cut"] += len(ids) > self.limit + 1
            # Drop the oldest turns first, then cut the end.
            while len(ids) > self.limit + 1 and (shorter := without_oldest(turns)):
                turns = shorter
                ids, learned = self._tokens(item, turns)
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

    def _tokens(
        self, item: Item, turns: Sequence[Mapping[str, Any]]
    ) -> tuple[list[int], list[bool]]:
        """The tokens of a dialogue, and whether each belongs to a reply."""
        try:
            return dialogue_with_replies(self.tokenizer, turns, dict(item.given))
        except TokenizerError as error:
            raise DataError(f"{item.where}: {error}") from None

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


def given_list(where: str, name: str, row: Mapping[str, Any]) -> Any:
    """A row's tools or documents, which many data sets hold as JSON in a text."""
    value = row[name]
    return parse_json(f"{where}, column {name!r},", value) if isinstance(value, str) else value


def read_turn(where: str, i: int, turn: Any) -> dict[str, Any]:
    """A turn as a message: role, content, and other fields such as tool calls."""
    if isinstance(turn, str):
        return {"role": ROLES[i % 2], "content": turn}
    if not isinstance(turn, Mapping) or not {"role", "content"} <= turn.keys():
        raise DataError(f"{where} holds {turn!r} where a turn should be")
    if not isinstance(turn["role"], str):
        raise DataError(f"{where} holds {turn['role']!r} where the role of a turn should be")
    others = {k: v for k, v in turn.items() if k not in ("role", "content") and v is not None}
    return {"role": turn["role"], "content": turn_text(where, turn["content"]), **others}


def turn_text(where: str, content: Any) -> str:
    """The text of a turn: null is empty, parts are joined; DataError for other content."""
    if content is None:
        return ""
    parts = content if isinstance(content, list) else [content]
    texts = []
    for part in parts:
        is_mapping = isinstance(part, Mapping) and part.get("type", "text") == "text"
        text = part.get("text") if is_mapping else part
        if not isinstance(text, str):
            raise DataError(f"{where} holds {part!r} where the text of a turn should be")
        texts.append(text)
    return "".join(texts)


def without_oldest(turns: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The turns from the user's second one on, after a system turn; empty if no reply is left."""
    first = int(turns[0]["role"] == "system")
    users = (i for i in range(first + 1, len(turns)) if turns[i]["role"] == "user")
    rest = turns[next(users, len(turns)) :]
    replied = any(turn["role"] == "assistant" for turn in rest)
    return [*turns[:first], *rest] if replied else []
