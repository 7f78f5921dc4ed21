"""Rows of text being continued: prompts through the tokenizer, and the text as it grows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxlm.artifact import Loaded, check_loaded
from jaxlm.generation.batch import Continuation, DecodingBatch, Reason, openings
from jaxlm.generation.constraints import Constraint, Grammar, grammar_of
from jaxlm.generation.detokenizer import Detokenizer
from jaxlm.generation.loop import CHUNK
from jaxlm.generation.options import GenerationError, GenerationOptions, options_of_rows
from jaxlm.generation.prefill import Prefix
from jaxlm.generation.rules import Rule
from jaxlm.generation.speculation import Speculation
from jaxlm.models import AutoregressiveLM, CausalLM
from jaxlm.tokenizer import Tokenizer

# Tokens between two looks at a text that streams or may end at a stop string.
LOOK = 8
ROWS = 64  # of a batch at most: the cache of all of them is held at once


def causal(loaded: Loaded) -> CausalLM:
    """Its model; JaxlmError for what is no Loaded, GenerationError where it continues no texts."""
    check_loaded(loaded)
    if not isinstance(loaded.model, CausalLM):
        raise GenerationError(f"a {type(loaded.model).__name__} does not continue texts")
    return loaded.model


def generating(loaded: Loaded) -> AutoregressiveLM:
    """Its model; JaxlmError for what is no Loaded, GenerationError where it generates no texts."""
    check_loaded(loaded)
    if not isinstance(loaded.model, AutoregressiveLM):
        raise GenerationError(f"a {type(loaded.model).__name__} does not generate texts")
    return loaded.model


def rows_of(
    loaded: Loaded, texts: Iterable[str]
) -> tuple[Sequence[Sequence[int]], Sequence[Sequence[int]] | None]:
    """What the model continues for each text, and its sources: see `openings`.

    Raises: GenerationError for a source that is longer than the model reads.
    """
    model, limit = generating(loaded), loaded.config.max_seq_len
    if loaded.config.architecture != "encoder_decoder":
        return prompts_ids(loaded.tokenizer, texts), None
    texts = listed_texts("texts", texts)
    rows = loaded.tokenizer.encode_sources(texts)
    for text, row in zip(texts, rows, strict=True):
        if len(row) > limit:
            raise GenerationError(
                f"the text {text[:30]!r}... has {len(row)} tokens, but the model reads {limit}: "
                "give its sentences one by one"
            )
    tokenizer = loaded.tokenizer
    start = tokenizer.pad_id if tokenizer.bos_id is None else tokenizer.bos_id
    return openings(model, rows, start)


def text_options(
    loaded: Loaded, num_rows: int, ends: Sequence[int | None] = (), **options: Any
) -> list[GenerationOptions]:
    """The options of each row, with the model's own `end_tokens` and others among its stop tokens.

    Ids of the model that are no tokens of the vocabulary are banned.
    """
    known = [*(end for end in ends if end is not None), *end_tokens(loaded)]
    absent = banned_ids(loaded)
    rows = options_of_rows(num_rows, **forced_tokens(loaded) | options)
    return [
        replace(
            row,
            stop_tokens=[*row.stop_tokens, *known],
            banned_tokens=[*row.banned_tokens, *absent],
        )
        for row in rows
    ]


def end_tokens(loaded: Loaded) -> list[int]:
    """The tokens that end a text: those that the model's files name, and the tokenizer's eos."""
    named = loaded.origin.get("eos_token_ids", [])
    eos_id = loaded.tokenizer.eos_id
    return list(dict.fromkeys([*named, *([] if eos_id is None else [eos_id])]))


def forced_tokens(loaded: Loaded) -> dict[str, int]:
    """The options that the files of an encoder-decoder set for its first and its last token."""
    if loaded.config.architecture != "encoder_decoder":
        return {}
    theirs = loaded.origin.get("generation_config") or {}
    names = {"forced_first": "forced_bos_token_id", "forced_last": "forced_eos_token_id"}
    return {ours: theirs[name] for ours, name in names.items() if theirs.get(name) is not None}


def banned_ids(loaded: Loaded) -> list[int]:
    """Ids that are no tokens, and the tokens that the model's files ban.

    Raises: GenerationError where these ban a sequence of tokens.
    """
    theirs = loaded.origin.get("generation_config") or {}
    named = [*(theirs.get("bad_words_ids") or []), *(theirs.get("suppress_tokens") or [])]
    bad = [[token] if isinstance(token, int) else token for token in named]
    if long := next((words for words in bad if len(words) != 1), None):
        raise GenerationError(
            f"bad_words_ids of the model's generation_config ban the tokens {long} in a row; only "
            "single tokens can be banned"
        )
    return [*absent_ids(loaded.tokenizer, loaded.config.vocab_size), *(i for [i] in bad)]


def absent_ids(tokenizer: Tokenizer, vocab_size: int) -> list[int]:
    """Ids of a model's padded vocabulary that are no tokens."""
    size = tokenizer.vocab_size
    if tokenizer.backend.get_vocab_size(with_added_tokens=True) == size:
        return list(range(size, vocab_size))
    present = set(tokenizer.backend.get_vocab().values())
    return [i for i in range(vocab_size) if i not in present]


def check_texts(name: str, texts: Any) -> None:
    """Raise GenerationError unless it is a list of texts; one text would be one of characters."""
    is_list = not isinstance(texts, str | Mapping) and isinstance(texts, Iterable)
    if not is_list or not all(isinstance(text, str) for text in texts):
        raise GenerationError(f"{name} must be a list of texts, got {texts!r}")


def listed_texts(name: str, texts: Iterable[str]) -> list[str]:
    """A list of texts; raises GenerationError where it is none, as `check_texts`."""
    if isinstance(texts, Iterable) and not isinstance(texts, str | Mapping):
        texts = list(texts)
    check_texts(name, texts)
    return list(texts)


def prompts_ids(tokenizer: Tokenizer, prompts: Iterable[str]) -> list[list[int]]:
    return [prompt_ids(tokenizer, prompt) for prompt in listed_texts("prompts", prompts)]


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
        rows: Sequence[Sequence[int]],
        options: Sequence[GenerationOptions],
        stop_strings: Sequence[str] = (),
        *,
        sources: Sequence[Sequence[int]] | None = None,
        grammar: Grammar | None = None,
        speculation: Speculation | None = None,
        prefix: Prefix | None = None,
        rule: Rule | None = None,
        report: bool = False,
    ):
        model, tokenizer = generating(loaded), loaded.tokenizer
        check_texts("stop_strings", stop_strings)
        if "" in stop_strings:
            raise GenerationError("stop_strings holds an empty text, which would end every text")
        if grammar is not None and speculation is not None:
            raise GenerationError("text that must match is not generated by speculation")
        self.constraints: list[Constraint] = []
        if grammar is not None:
            vocab_size = model.config.vocab_size
            self.constraints = [Constraint(tokenizer, vocab_size, grammar, row) for row in rows]
        self.batch = DecodingBatch(
            model,
            loaded.params,
            rows,
            options,
            sources=sources,
            speculation=speculation,
            prefix=prefix,
            rule=rule,
            report=report,
        )
        for row, constraint in zip(self.batch.rows, self.constraints, strict=False):
            self._finish(row, constraint)
        self.texts = [
            Detokenizer(tokenizer, row, stop_strings, own.min_new_tokens)
            for row, own in zip(rows, options, strict=True)
        ]

    @classmethod
    def of_prompts(
        cls,
        loaded: Loaded,
        prompts: Iterable[str],
        stop_strings: Sequence[str] = (),
        regex: str | None = None,
        json_schema: str | Mapping[str, Any] | None = None,
        speculation: Speculation | None = None,
        rule: Rule | None = None,
        report: bool = False,
        **options: Any,
    ) -> "Iterator[TextBatch]":
        """Batches of the prompts in turn, a row like one of a single batch; see `generate`."""
        rows, sources = rows_of(loaded, prompts)
        own = text_options(loaded, len(rows), **options)
        grammar = grammar_of(regex, json_schema)
        return (
            cls(
                loaded,
                rows[i : i + ROWS],
                own[i : i + ROWS],
                stop_strings,
                sources=None if sources is None else sources[i : i + ROWS],
                grammar=grammar,
                speculation=speculation,
                rule=rule,
                report=report,
            )
            for i in range(0, len(rows), ROWS)
        )

    def complete(self) -> list[str]:
        """The whole text of each row."""
        pieces = self.run(LOOK if any(text.stops for text in self.texts) else CHUNK)
        return ["".join(row) for row in zip(*pieces, strict=True)] or [""] * len(self.texts)

    @property
    def reasons(self) -> list[Reason]:
        """Why each row ended."""
        return [row.reason for row in self.batch.rows]

    def run(self, size: int) -> Iterator[list[str]]:
        """Yield each row's new text after every `size` tokens, until all are done.

        What a row has generated ends with the token that completes a stop string.
        """
        rows = self.batch.rows
        while not self.batch.done:
            if self.constraints:
                self.batch.allow([constraint.allowed() for constraint in self.constraints])
            active = [not row.done for row in rows]
            before = [len(row.generated) for row in rows]
            self.batch.advance(1 if self.constraints else size)
            yield [
                self._new_text(i, row.generated[before[i] :]) if active[i] else ""
                for i, row in enumerate(rows)
            ]

    def _finish(self, row: Continuation, constraint: Constraint) -> None:
        if constraint.finished:
            row.done, row.reason = True, "match"

    def _new_text(self, i: int, new: list[int]) -> str:
        """The text that new tokens add to a row, which is done where its text ends."""
        row, text = self.batch.rows[i], self.texts[i]
        constraint = self.constraints[i] if self.constraints else None
        if constraint is not None:
            constraint.check(new[-1])
        if new[-1] in row.options.stop_tokens:
            new = new[:-1]
        elif constraint is not None:
            constraint.accept(new[-1])
            self._finish(row, constraint)
        piece = text.push(new)
        if text.stopped:
            row.done, row.reason = True, "stop_string"
            del row.generated[len(text.tokens) - text.num_prompt :]
        return piece + text.finish() if row.done else piece
