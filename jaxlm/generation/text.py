"""Text in, text out: prompts through the tokenizer, a batch of rows, and back."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.generation.batch import Batch, DraftModel
from jaxlm.generation.beam import beam_search
from jaxlm.generation.caching import Prefix
from jaxlm.generation.constraints import Constraint, grammar_of
from jaxlm.generation.detokenizing import BROKEN, Detokenizer
from jaxlm.generation.programs import CHUNK
from jaxlm.generation.settings import (
    GenerationError,
    PastContext,
    Rules,
    Settings,
    settings_of_rows,
)
from jaxlm.generation.speculation import Lookup
from jaxlm.models import CausalLM
from jaxlm.tokenizer import Tokenizer

# Tokens a dispatch where a text is looked at between them: enough to make the pauses small.
LOOK = 8


def generate(
    loaded: Loaded,
    prompts: list[str],
    max_new_tokens: int | Sequence[int] = 64,
    temperature: float | Sequence[float] = 1.0,
    top_k: int | Sequence[int] | None = None,
    top_p: float | Sequence[float] | None = None,
    seed: int | Sequence[int] = 0,
    past_context: PastContext = "slide",
    stop_tokens: Sequence[int] = (),
    stop_strings: Sequence[str] = (),
    regex: str | None = None,
    json_schema: str | Mapping[str, Any] | None = None,
    speculation: Lookup | DraftModel | None = None,
    **rules: Unpack[Rules],
) -> list[str]:
    """Continue each prompt and return the continuations alone; settings as for `generate_tokens`.

    A continuation ends before the tokenizer's eos, a stop token or a stop string, wherever the
    borders between its tokens lie. With `regex` or `json_schema` it matches that, unless
    `max_new_tokens` ends it before. An empty prompt starts from the tokenizer's opening token, bos
    or eos; without any it raises GenerationError.
    """
    batch = TextBatch.of_prompts(
        loaded,
        prompts,
        stop_strings,
        regex,
        json_schema,
        speculation,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        past_context=past_context,
        stop_tokens=stop_tokens,
        **rules,
    )
    texts = [""] * len(prompts)
    for pieces in batch.run(LOOK if stop_strings else CHUNK):
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
    return texts


def stream(loaded: Loaded, prompt: str, **settings: Any) -> Iterator[str]:
    """Yield the continuation of a prompt in pieces of whole characters.

    Joined they are what `generate` returns with the same settings.
    """
    for (piece,) in TextBatch.of_prompts(loaded, [prompt], **settings).run(LOOK):
        if piece:
            yield piece


class Explained(NamedTuple):
    """A token with its probability by the model, before all rules, and the likeliest others."""

    text: str
    probability: float
    others: list[tuple[str, float]]  # text and probability, likeliest first


def explain(
    loaded: Loaded, prompts: list[str], num_others: int = 3, **settings: Any
) -> list[list[Explained]]:
    """The tokens that `generate` continues each prompt with, and what else they might have been.

    The token that ends a text is among them. At most nine others are known.
    """
    batch = TextBatch.of_prompts(loaded, prompts, report=True, **settings)
    for _ in batch.run(LOOK if settings.get("stop_strings") else CHUNK):
        pass

    def text(token: int) -> str:
        shown = loaded.tokenizer.decode([token], skip_special_tokens=False)
        # A part of a character shows by its name in the vocabulary.
        name = loaded.tokenizer.backend.id_to_token(token) if BROKEN in shown else None
        return shown if name is None else name

    rows = []
    for row in batch.batch.rows:
        columns = (row.reported[name] for name in ("log_probs", "top_tokens", "top_log_probs"))
        tokens = zip(row.generated, *(np.concatenate(column) for column in columns), strict=True)
        explained = []
        for token, log_prob, top, log_probs in tokens:
            others = [(t, p) for t, p in zip(top.tolist(), np.exp(log_probs), strict=True)]
            named = [(text(t), float(p)) for t, p in others if t != token][:num_others]
            explained.append(Explained(text(token), float(np.exp(log_prob)), named))
        rows.append(explained)
    return rows


def best_texts(
    loaded: Loaded,
    prompts: list[str],
    max_new_tokens: int = 64,
    num_beams: int = 4,
    num_best: int = 1,
    length_penalty: float = 1.0,
) -> list[list[tuple[str, float]]]:
    """The best continuations of each prompt by `beam_search`, with their scores, best first."""
    model, tokenizer = causal(loaded), loaded.tokenizer
    rows = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    stops = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    found = beam_search(
        model, loaded.params, rows, max_new_tokens, num_beams, num_best, length_penalty, stops
    )
    texts = []
    for row, beams, counts, scores in zip(
        rows, found.tokens.tolist(), found.counts, found.scores.tolist(), strict=True
    ):
        best = []
        for tokens, count, score in zip(beams, counts, scores, strict=True):
            text = Detokenizer(tokenizer, row)
            new = [token for token in tokens[:count] if token not in stops]
            best.append((text.push(new) + text.finish(), score))
        texts.append(best)
    return texts


def causal(loaded: Loaded) -> CausalLM:
    if not isinstance(loaded.model, CausalLM):
        raise GenerationError(f"a {type(loaded.model).__name__} does not continue texts")
    return loaded.model


def text_settings(loaded: Loaded, num_rows: int, **settings: Any) -> list[Settings]:
    """The settings of each row, the tokenizer's eos among the stop tokens."""
    eos_id = loaded.tokenizer.eos_id
    stops = [*settings.pop("stop_tokens", ()), *([] if eos_id is None else [eos_id])]
    return settings_of_rows(num_rows, stop_tokens=stops, **settings)


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a prompt, or the token that opens a text where there are none."""
    ids = tokenizer.encode_prompt(prompt)
    if ids:
        return ids
    opening = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    if opening is None:
        raise GenerationError(
            "the prompt is empty and this tokenizer has no token that opens a text; give at least "
            "one character"
        )
    return [opening]


class TextBatch:
    """A batch of rows whose text is looked at as it grows."""

    def __init__(
        self,
        loaded: Loaded,
        rows: Sequence[list[int]],
        settings: Sequence[Settings],
        stop_strings: Sequence[str] = (),
        *,
        grammar: str | None = None,
        speculation: Lookup | DraftModel | None = None,
        prefix: Prefix | None = None,
        report: bool = False,
    ):
        model, tokenizer = causal(loaded), loaded.tokenizer
        self.constraints: list[Constraint] = []
        if grammar is not None:
            if speculation is not None:
                raise GenerationError("text that must match is not generated by speculation")
            vocab_size = model.config.vocab_size or 0
            self.constraints = [Constraint(tokenizer, vocab_size, grammar, row) for row in rows]
        self.batch = Batch(
            model,
            loaded.params,
            rows,
            settings,
            speculation=speculation,
            prefix=prefix,
            report=report,
        )
        self.texts = [Detokenizer(tokenizer, row, stop_strings) for row in rows]

    @classmethod
    def of_prompts(
        cls,
        loaded: Loaded,
        prompts: list[str],
        stop_strings: Sequence[str] = (),
        regex: str | None = None,
        json_schema: str | Mapping[str, Any] | None = None,
        speculation: Lookup | DraftModel | None = None,
        report: bool = False,
        **settings: Any,
    ) -> "TextBatch":
        """A batch of prompts as texts; for the arguments see `generate`."""
        if isinstance(prompts, str):
            raise GenerationError("prompts must be a list of texts, not one text")
        causal(loaded)
        rows = [prompt_ids(loaded.tokenizer, prompt) for prompt in prompts]
        constrained = regex is not None or json_schema is not None
        return cls(
            loaded,
            rows,
            text_settings(loaded, len(rows), **settings),
            stop_strings,
            grammar=grammar_of(loaded.tokenizer, regex, json_schema) if constrained else None,
            speculation=speculation,
            report=report,
        )

    def run(self, size: int) -> Iterator[list[str]]:
        """Yield each row's new text after a dispatch of `size` tokens, until all are done."""
        ended = [False] * len(self.texts)
        while not self.batch.done:
            if self.constraints:
                self.batch.allow([constraint.allowed() for constraint in self.constraints])
            before = [len(row.generated) for row in self.batch.rows]
            self.batch.advance(1 if self.constraints else size)
            pieces = []
            for i, (row, text) in enumerate(zip(self.batch.rows, self.texts, strict=True)):
                new = row.generated[before[i] :]
                if new and new[-1] in row.settings.stop_tokens:
                    new.pop()
                elif self.constraints and new:
                    self.constraints[i].accept(new[-1])
                    row.done |= self.constraints[i].finished
                piece = text.push(new)
                row.done |= text.stopped
                if row.done and not ended[i]:
                    ended[i], piece = True, piece + text.finish()
                pieces.append(piece)
            yield pieces
