"""A batch of rows being continued: what the host knows of each, and one dispatch after another."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jaxlm.generation.batching import bucket, padded
from jaxlm.generation.caching import Prefix, fill_cache, refill
from jaxlm.generation.choosing import choice_of
from jaxlm.generation.penalties import Context
from jaxlm.generation.preparing import prepared
from jaxlm.generation.programs import CHUNK, Emitted, decode
from jaxlm.generation.settings import GenerationError, Settings, check_prompts
from jaxlm.generation.speculation import Draft, Lookup, Speculation
from jaxlm.models import CausalLM

SMALLEST_CACHE = 128


@dataclass
class Row:
    """One prompt and what has become of it."""

    settings: Settings
    context: list[int]  # the tokens that the model sees
    num_prompt: int  # how many of them are the prompt's
    generated: list[int] = field(default_factory=list)
    done: bool = False
    reported: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class DraftModel:
    """A smaller model of the same vocabulary, which proposes `width` tokens at a time."""

    model: CausalLM
    params: Any
    width: int = 4


class Batch:
    """Rows that are continued together, each as it would be alone.

    `advance` generates some tokens of every row that is not done; between two calls a caller may
    end a row, or allow it only some tokens. GenerationError for prompts, settings or a draft model
    that do not fit the model.
    """

    def __init__(
        self,
        model: CausalLM,
        params: Any,
        prompts: Sequence[Sequence[int]],
        settings: Sequence[Settings],
        *,
        speculation: Lookup | DraftModel | None = None,
        prefix: Prefix | None = None,
        report: bool = False,
    ):
        self.model, self.params = prepared(model, params)
        self.report = report
        self.num_steps = 0
        self.speculation: Speculation | None = None
        self.draft: tuple[CausalLM, Any] | None = None
        self.memory: Any = None
        vocab_size, limit = model.config.vocab_size, model.config.max_seq_len
        check_prompts(prompts, vocab_size)
        for row in settings:
            row.check_tokens(vocab_size)
        if isinstance(speculation, DraftModel):
            check_draft(speculation.model, model)
            self.draft = prepared(speculation.model, speculation.params)
            self.speculation = Draft(self.draft[0], speculation.width)
        elif speculation is not None:
            self.speculation = speculation
        self.limit, self.kept = limit, max(1, limit // 2)
        self.rows = [self._row(*pair) for pair in zip(prompts, settings, strict=True)]
        if not self.rows:
            return
        self.batch_size = bucket(len(self.rows), 1)
        self.choice = choice_of(settings, self.batch_size, vocab_size)
        # A step of speculation writes its proposals as well, wrong ones too.
        spare = 0 if self.speculation is None else self.speculation.width
        needed = spare + max(len(r.context) + r.settings.max_new_tokens for r in self.rows)
        self.num_slots = min(bucket(needed, SMALLEST_CACHE), limit + spare)
        cached = [row.context[:-1] for row in self.rows]
        self.cache = fill_cache(self.model, self.params, cached, self.num_slots, prefix)
        if self.draft is not None:
            self.memory = fill_cache(*self.draft, cached, self.num_slots)
        elif isinstance(self.speculation, Lookup):
            self.memory = jax.device_put(self.speculation.start(self.batch_size))

    def _row(self, prompt: Sequence[int], settings: Settings) -> Row:
        # The last token generated takes no place.
        too_long = len(prompt) + settings.max_new_tokens - 1 > self.limit
        if settings.past_context == "refuse" and too_long:
            raise GenerationError(
                f"a prompt of {len(prompt)} tokens and {settings.max_new_tokens} new ones do not "
                f"fit the model's context of {self.limit}"
            )
        context = list(prompt if len(prompt) <= self.limit else prompt[-self.kept :])
        return Row(settings, context, len(context))

    @property
    def done(self) -> bool:
        return all(row.done for row in self.rows)

    def allow(self, allowed: Sequence[np.ndarray]) -> None:
        """Let each row's next tokens be only those with a bit set; see `allow_only`."""
        words = np.full(self.choice.allowed.shape, 2**32 - 1, np.uint32)
        words[: len(allowed)] = allowed
        self.choice = dataclasses.replace(self.choice, allowed=jax.device_put(words))

    def advance(self, most: int = CHUNK) -> Emitted:
        """Generate up to `most` tokens of every row not done; what came of it, as NumPy arrays."""
        budget = np.zeros(self.batch_size, np.int32)
        for i, row in enumerate(self.rows):
            if row.done:
                continue
            if len(row.context) > self.limit:
                self._slide(i, row)
            left = row.settings.max_new_tokens - len(row.generated)
            budget[i] = min(most, CHUNK, left, self.limit + 1 - len(row.context))
        self.cache, emitted, self.memory = decode(
            self.model,
            self.params,
            self.cache,
            self._context(),
            self.choice,
            budget,
            np.bool_(self.report),
            self.speculation,
            None if self.draft is None else self.draft[1],
            self.memory,
        )
        emitted = jax.tree.map(np.asarray, emitted)
        self.num_steps += int(emitted.num_steps)
        for i, row in enumerate(self.rows):
            new = emitted.tokens[i, : emitted.counts[i]].tolist()
            row.context += new
            row.generated += new
            if self.report:
                for name in ("log_probs", "top_tokens", "top_log_probs"):
                    row.reported[name].append(getattr(emitted, name)[i, : len(new)])
            ended = len(row.generated) == row.settings.max_new_tokens
            row.done |= ended or (bool(new) and new[-1] in row.settings.stop_tokens)
        return emitted

    def _context(self) -> Context:
        rows = self.rows
        columns = [[len(r.context) for r in rows], [r.num_prompt for r in rows]]
        columns.append([len(r.generated) for r in rows])
        lengths, num_prompt, num_generated = padded(columns, (3, self.batch_size), 1)
        shape = (self.batch_size, self.num_slots + 1)
        tokens = padded([r.context for r in rows], shape, 0)
        return Context(*map(jax.device_put, (tokens, lengths, num_prompt, num_generated)))

    def _slide(self, i: int, row: Row) -> None:
        """Go on with the last half of the context, its newest token among them."""
        dropped = len(row.context) - self.kept
        row.context = row.context[dropped:]
        row.num_prompt = max(0, row.num_prompt - dropped)
        self.cache = refill(self.model, self.params, self.cache, i, row.context[:-1])
        if self.draft is not None:
            self.memory = refill(*self.draft, self.memory, i, row.context[:-1])

    def prefix(self) -> Prefix:
        """What a batch of one row has cached, for the next prompt; the batch ends with it."""
        (row,) = self.rows
        return Prefix(row.context[:-1], self.cache)


def check_draft(draft: CausalLM, model: CausalLM) -> None:
    """Raise GenerationError unless the draft model can stand in for the model."""
    size, expected = draft.config.vocab_size, model.config.vocab_size
    if size != expected:
        raise GenerationError(
            f"the draft model has a vocabulary of {size} tokens, the model of {expected}"
        )
    size, expected = draft.config.max_seq_len, model.config.max_seq_len
    if size < expected:
        raise GenerationError(
            f"the draft model has a context of {size} tokens, shorter than the model's {expected}"
        )
