"""Dialogues: turns into prompts as the model was trained on them, and replies out of tokens."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from jaxlm.artifact import Loaded
from jaxlm.generation.options import GenerationError
from jaxlm.generation.prefill import Prefix
from jaxlm.generation.text_batch import LOOK, TextBatch, causal, check_texts, text_options
from jaxlm.tokenizer.chat import check_given, dialogue_ids, knows_dialogues


class Chat:
    """A dialogue with a model: `reply` streams the answer to a message and remembers both.

    The prompt is the tokenizer's chat template, or for a model of `[CLS] turn [SEP] turn [SEP]`
    dialogues that; GenerationError where the tokenizer has neither. What the model has cached of
    the turns before is not computed again. A template may show `tools` and `documents`, lists of
    JSON objects as transformers takes them. `options` are those of `generate`; each turn draws as a
    row of its own.
    """

    def __init__(
        self,
        loaded: Loaded,
        system: str | None = None,
        *,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        **options: Any,
    ):
        causal(loaded)
        tokenizer = loaded.tokenizer
        self.loaded = loaded
        if not knows_dialogues(tokenizer):
            raise GenerationError(
                "this tokenizer has no chat template, nor the [CLS] and [SEP] of a dialogue model; "
                "`jaxlm generate` continues texts"
            )
        self.stop_strings = options.pop("stop_strings", ())
        check_texts("stop_strings", self.stop_strings)
        ends = () if tokenizer.config.get("chat_template") else (tokenizer.sep_id,)
        (self.options,) = text_options(loaded, 1, ends, **options)
        self.system = system
        given = {"tools": tools, "documents": documents}
        self.given = {name: value for name, value in given.items() if value is not None}
        check_given(tokenizer, self.given)
        self.reset()

    def reset(self) -> None:
        """Forget all turns."""
        self.messages: list[dict[str, str]] = []
        if self.system is not None:
            self.messages.append({"role": "system", "content": self.system})
        self.prefix: Prefix | None = None

    def reply(self, message: str) -> Iterator[str]:
        """Yield the reply to a message in pieces; it is remembered when it is whole."""
        turns = [*self.messages, {"role": "user", "content": message}]
        turn = sum(m["role"] == "assistant" for m in self.messages)
        prompt = dialogue_ids(self.loaded.tokenizer, turns, self.given)
        prefix, self.prefix = self.prefix, None  # used up
        batch = TextBatch(
            self.loaded,
            [prompt],
            [replace(self.options, row=self.options.row + turn)],
            self.stop_strings,
            prefix=prefix,
        )
        text = ""
        for (piece,) in batch.run(LOOK):
            # Replies often begin with the space between two words.
            piece = piece if text else piece.lstrip()
            text += piece
            if piece:
                yield piece
        self.prefix = batch.batch.prefix()
        self.messages = [*turns, {"role": "assistant", "content": text.rstrip()}]
