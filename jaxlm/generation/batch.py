"""A batch of rows being continued: what the host knows of each, and one call after another."""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np

from jaxlm.generation.loop import CHUNK, REPORTED, Emitted, decode_chunk
from jaxlm.generation.options import GenerationError, GenerationOptions
from jaxlm.generation.prefill import Prefix, fill_cache, refill
from jaxlm.generation.rules import Context, Rule
from jaxlm.generation.sampler import ALL, option_arrays
from jaxlm.generation.speculation import Speculation
from jaxlm.models import AutoregressiveLM
from jaxlm.ops.padding import bucket, pad_rows

SMALLEST_CACHE = 128
# length: max_new_tokens; match: nothing can follow what a regex or a schema asks for
Reason = Literal["length", "stop_token", "stop_string", "match"]


@dataclass
class Continuation:
    """One prompt and what has become of it."""

    options: GenerationOptions
    context: list[int]  # the tokens that the model sees
    num_prompt: int  # how many of them are the prompt's
    generated: list[int] = field(default_factory=list)
    done: bool = False
    reason: Reason = "length"  # why it ended, once it is done
    reported: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))


class DecodingBatch:
    """Rows that are continued together, each as it would be alone.

    Rows of an encoder-decoder are targets: each begins with its prompt and belongs to one of the
    `sources`. `advance` generates some tokens of every row that is not done; between two calls a
    caller may end a row, or allow it only some tokens. GenerationError for prompts, sources,
    options or a speculation that do not fit the model.
    """

    def __init__(
        self,
        model: AutoregressiveLM,
        params: Any,
        prompts: Sequence[Sequence[int]],
        options: Sequence[GenerationOptions],
        *,
        sources: Sequence[Sequence[int]] | None = None,
        speculation: Speculation | None = None,
        prefix: Prefix | None = None,
        rule: Rule | None = None,
        report: bool = False,
    ):
        self.model, self.params, self.speculation = model, params, speculation
        self.rule = rule
        self.report = report
        self.num_steps = 0
        check_model(model, params)
        if len(options) != len(prompts):
            raise GenerationError(
                f"{len(prompts)} prompts need as many options, got {len(options)}"
            )
        vocab_size, limit = model.config.vocab_size, model.config.max_seq_len
        check_prompt_ids(prompts, vocab_size)
        check_sources(model, prompts, sources)
        for row in options:
            row.check_tokens(vocab_size)
        if rule is not None and not callable(rule):
            raise GenerationError(
                f"rule must be a function of logits and context, got {rule!r:.60}"
            )
        if speculation is not None:
            if not hasattr(speculation, "propose"):
                raise GenerationError(
                    f"speculation must be Lookup() or DraftModel(model, params), got "
                    f"{speculation!r}"
                )
            speculation.check(model)
        self.limit, self.kept = limit, max(1, limit // 2)
        self.rows = [self._row(*pair) for pair in zip(prompts, options, strict=True)]
        if not self.rows:
            return
        self.batch_size = bucket(len(self.rows), 1)
        self.options = option_arrays(options, self.batch_size, vocab_size)
        # A step of speculation writes its proposals as well, wrong ones too.
        spare = 0 if speculation is None else speculation.width
        needed = spare + max(len(r.context) + r.options.max_new_tokens for r in self.rows)
        self.num_slots = bucket(needed, SMALLEST_CACHE, limit + spare)
        cached = [row.context[:-1] for row in self.rows]
        self.cache = fill_cache(model, params, cached, self.num_slots, prefix, sources)
        self.memory: Any = None
        if speculation is not None:
            read = {} if sources is None else {"sources": sources}
            self.memory = speculation.start(cached, self.batch_size, self.num_slots, **read)

    def _row(self, prompt: Sequence[int], options: GenerationOptions) -> Continuation:
        # The last token generated takes no place.
        too_long = len(prompt) + options.max_new_tokens - 1 > self.limit
        if options.past_context == "refuse" and too_long:
            raise GenerationError(
                f"a prompt of {len(prompt)} tokens and {options.max_new_tokens} new ones do not "
                f"fit the model's context of {self.limit}"
            )
        context = list(prompt if len(prompt) <= self.limit else prompt[-self.kept :])
        return Continuation(options, context, len(context))

    @property
    def done(self) -> bool:
        return all(row.done for row in self.rows)

    def allow(self, allowed: Sequence[np.ndarray]) -> None:
        """Let each row's next tokens be only those with a bit set; see `allow_only`."""
        words = np.full(self.options.allowed.shape, ALL, np.uint32)
        words[: len(allowed)] = allowed
        self.options = dataclasses.replace(self.options, allowed=jax.device_put(words))

    def advance(self, most: int = CHUNK) -> Emitted:
        """Generate up to `most` tokens of every row not done; what came of it, as NumPy arrays."""
        budget = np.zeros(self.batch_size, np.int32)
        for i, row in enumerate(self.rows):
            if row.done:
                continue
            if len(row.context) > self.limit:
                self._slide(i, row)
            left = row.options.max_new_tokens - len(row.generated)
            budget[i] = min(most, CHUNK, left, self.limit + 1 - len(row.context))
        self.cache, emitted, self.memory = decode_chunk(
            self.model,
            self.params,
            self.cache,
            self._context(),
            self.options,
            budget,
            np.bool_(self.report),
            self.speculation,
            self.memory,
            self.rule,
        )
        emitted = jax.tree.map(np.asarray, emitted)
        self.num_steps += int(emitted.num_steps)
        for i, row in enumerate(self.rows):
            new = emitted.tokens[i, : emitted.counts[i]].tolist()
            row.context += new
            row.generated += new
            if self.report:
                for name in REPORTED:
                    row.reported[name].append(getattr(emitted, name)[i, : len(new)])
            if new and new[-1] in row.options.stop_tokens:
                row.done, row.reason = True, "stop_token"
            row.done |= len(row.generated) == row.options.max_new_tokens
        return emitted

    def _context(self) -> Context:
        rows = self.rows
        columns = [[len(r.context) for r in rows], [r.num_prompt for r in rows]]
        columns.append([len(r.generated) for r in rows])
        lengths, num_prompt, num_generated = pad_rows(columns, (3, self.batch_size), 1)
        shape = (self.batch_size, self.num_slots + 1)
        tokens = pad_rows([r.context for r in rows], shape)
        return Context(*map(jax.device_put, (tokens, lengths, num_prompt, num_generated)))

    def _slide(self, i: int, row: Continuation) -> None:
        """Go on with the last half of the context, its newest token among them."""
        dropped = len(row.context) - self.kept
        row.context = row.context[dropped:]
        row.num_prompt = max(0, row.num_prompt - dropped)
        self.cache = refill(self.model, self.params, self.cache, i, row.context[:-1])
        if self.speculation is not None:
            self.memory = self.speculation.slide(self.memory, i, row.context[:-1])

    def prefix(self) -> Prefix:
        """What a batch of one row has cached, for the next prompt; the batch ends with it."""
        (row,) = self.rows
        return Prefix(row.context[:-1], self.cache)


def openings(
    model: AutoregressiveLM, rows: Sequence[Sequence[int]], start: int | None = None
) -> tuple[Sequence[Sequence[int]], Sequence[Sequence[int]] | None]:
    """What a model continues for these rows, and the sources that it reads.

    A decoder continues the rows. For an encoder-decoder they are the sources, and it continues the
    token that opens a target: that of its config, else `start`.

    Raises: GenerationError where neither names it.
    """
    config = model.config
    if config.architecture != "encoder_decoder":
        return rows, None
    start = start if config.decoder_start_id is None else config.decoder_start_id
    if start is None:
        raise GenerationError(
            "model.decoder_start_id is null: give the token that a target begins with"
        )
    return [[start]] * len(rows), rows


def check_model(model: Any, params: Any) -> None:
    """Raise GenerationError unless it is a model that generates, with its params."""
    if not isinstance(model, AutoregressiveLM):
        raise GenerationError(
            f"a model that generates is a CausalLM or a Seq2SeqLM, got a {type(model).__name__}"
        )
    if not isinstance(params, Mapping) or "params" in params:
        names = list(params) if isinstance(params, Mapping) else type(params).__name__
        raise GenerationError(f"params must be those of the model, as loaded.params, got {names}")


def check_prompt_ids(
    prompts: Sequence[Sequence[int]], vocab_size: int, what: str = "prompt"
) -> None:
    """Raise GenerationError unless each prompt has tokens, and only those of the model."""
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise GenerationError(f"{what} {i} is empty; a model needs one token or more")
        wrong = next((token for token in prompt if not 0 <= token < vocab_size), None)
        if wrong is not None:
            raise GenerationError(
                f"{what} {i} holds token {wrong}, but the model's are 0 to {vocab_size - 1}"
            )


def check_sources(
    model: AutoregressiveLM,
    prompts: Sequence[Sequence[int]],
    sources: Sequence[Sequence[int]] | None,
) -> None:
    """Raise GenerationError unless an encoder-decoder, and no other model, has a source a row."""
    config = model.config
    if (sources is not None) != (config.architecture == "encoder_decoder"):
        told = "reads no sources" if sources is not None else "needs a source for each row"
        raise GenerationError(f"a model of architecture {config.architecture} {told}")
    if sources is None:
        return
    if len(sources) != len(prompts):
        raise GenerationError(f"there are {len(sources)} sources for {len(prompts)} rows")
    check_prompt_ids(sources, config.source_vocab_size, "source")
    for i, source in enumerate(sources):
        if len(source) > config.max_seq_len:
            raise GenerationError(
                f"source {i} has {len(source)} tokens, but the model reads {config.max_seq_len}"
            )
