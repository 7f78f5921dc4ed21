"""Token generation: prompts as arrays in, new tokens as arrays out."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.config.schema import require
from jaxlm.generation.batch import DecodingBatch, check_model, openings
from jaxlm.generation.loop import REPORTED, TOP
from jaxlm.generation.options import (
    GenerationError,
    PastContext,
    is_number,
    options_of_rows,
)
from jaxlm.generation.rules import Rule
from jaxlm.generation.speculation import Speculation
from jaxlm.models import AutoregressiveLM
from jaxlm.ops.padding import pad_rows

# One value, or one a row.
Numbers = float | Sequence[float] | np.ndarray | Array
WholeNumbers = int | Sequence[int] | np.ndarray | Array
TokenIds = Sequence[int] | Sequence[Sequence[int]] | np.ndarray | Array


@dataclass(frozen=True)
class Scored:
    """New tokens with their log-probabilities in nats by the model itself, before all rules."""

    tokens: Int[np.ndarray, "B M"]  # pad after the last
    counts: Int[np.ndarray, " B"]  # how many tokens each row has
    log_probs: Float[np.ndarray, "B M"]  # 0 behind them
    top_tokens: Int[np.ndarray, "B M k"]  # the likeliest tokens at each place, in order
    top_log_probs: Float[np.ndarray, "B M k"]


def generate_tokens(
    model: AutoregressiveLM,
    params: Any,
    ids: Int[Array | np.ndarray, "B T"],
    lengths: Int[Array | np.ndarray, " B"] | None = None,
    max_new_tokens: WholeNumbers = 64,
    temperature: Numbers = 1.0,
    top_k: WholeNumbers | None = None,
    top_p: Numbers | None = None,
    stop_tokens: TokenIds = (),
    pad_id: int = 0,
    seed: WholeNumbers = 0,
    past_context: PastContext = "slide",
    speculation: Speculation | None = None,
    rule: Rule | None = None,
    **options: Any,
) -> Int[np.ndarray, "B M"]:
    """Continue each row of ids by M = `max_new_tokens` tokens, the stop token included, then pad.

    For an encoder-decoder the rows are sources: the new tokens are a target of each.

    Rows may be right-padded, with their `lengths` (default: T). `options` are the other fields of
    `GenerationOptions`. Any number may be a list or an array with a value for each row, and so may
    bias, bans and stop tokens. Speculation changes the speed and not the tokens.
    A `rule` of your own maps logits (B, V) and a `Context` to other logits, before all options; it
    is compiled with the loop, so pass a module-level function.

    Token t of row i is drawn with the key fold_in(fold_in(key(seed), i), t), and a row comes out as
    it would alone at its place. With a sequence of seeds row i draws as the first row of its own
    seed.

    When a row would hold more than the model's `max_seq_len` tokens, prompt included, "slide" goes
    on with its last `max_seq_len // 2` (the newest token among them) at positions from 0, as often
    as needed; "refuse" raises. Raises GenerationError or ConfigError for bad arguments.
    """
    require(is_number(pad_id, Integral), "pad_id", "a token id", pad_id)
    check_model(model, params)
    prompts, sources = openings(model, split_rows(ids, lengths))
    rows = options_of_rows(
        len(prompts),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop_tokens=stop_tokens,
        seed=seed,
        past_context=past_context,
        **options,
    )
    batch = DecodingBatch(
        model, params, prompts, rows, sources=sources, speculation=speculation, rule=rule
    )
    while not batch.done:
        batch.advance()
    width = int(np.max(np.asarray(max_new_tokens), initial=0))
    return pad_rows([row.generated for row in batch.rows], (len(prompts), width), pad_id)


def score_tokens(
    model: AutoregressiveLM,
    params: Any,
    ids: Int[Array | np.ndarray, "B T"],
    lengths: Int[Array | np.ndarray, " B"] | None = None,
    pad_id: int = 0,
    speculation: Speculation | None = None,
    **options: Any,
) -> Scored:
    """What `generate_tokens` returns, with the log-probabilities of the tokens and the likeliest.

    `options` are the fields of `GenerationOptions`, most of them also with a value a row.
    """
    prompts, sources = openings(model, split_rows(ids, lengths))
    rows = options_of_rows(len(prompts), **options)
    batch = DecodingBatch(
        model, params, prompts, rows, sources=sources, speculation=speculation, report=True
    )
    while not batch.done:
        batch.advance()
    B, M = len(rows), max((len(row.generated) for row in batch.rows), default=0)
    k = min(TOP, model.config.vocab_size or 0)
    out = Scored(
        tokens=pad_rows([row.generated for row in batch.rows], (B, M), pad_id),
        counts=np.array([len(row.generated) for row in batch.rows], np.int32),
        log_probs=np.zeros((B, M), np.float32),
        top_tokens=np.full((B, M, k), pad_id, np.int32),
        top_log_probs=np.zeros((B, M, k), np.float32),
    )
    for i, row in enumerate(batch.rows):
        for name in REPORTED:
            getattr(out, name)[i, : out.counts[i]] = np.concatenate(row.reported[name])
    return out


def whole_numbers(name: str, values: Any) -> Int[np.ndarray, "..."]:
    """An array of integers; GenerationError for what is none, such as rows of unlike lengths."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise GenerationError(
            f"{name} must be rows of the same length: pad them and give their lengths"
        ) from None
    if array.size and array.dtype.kind not in "iu":
        raise GenerationError(f"{name} must be whole numbers, got {values!r:.60}")
    return array.astype(int)


def split_rows(
    ids: Int[Array | np.ndarray, "..."], lengths: Int[Array | np.ndarray, " B"] | None
) -> list[list[int]]:
    """The rows of ids without their padding; GenerationError where lengths do not fit them."""
    ids = whole_numbers("ids", ids)
    if ids.ndim != 2:
        raise GenerationError(f"ids must be rows of tokens, (B, T), but have the shape {ids.shape}")
    lengths = np.full(len(ids), ids.shape[1]) if lengths is None else lengths
    lengths = whole_numbers("lengths", lengths)
    if lengths.shape != ids.shape[:1]:
        raise GenerationError(f"{len(ids)} rows of ids need as many lengths, got {lengths.shape}")
    for i, length in enumerate(lengths.tolist()):
        if not 1 <= length <= ids.shape[1]:
            raise GenerationError(
                f"row {i} of ids has length {length}, but a prompt has 1 to {ids.shape[1]} tokens"
            )
    return [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
