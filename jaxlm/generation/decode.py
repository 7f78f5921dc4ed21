"""Token generation: prompts as arrays in, new tokens as arrays out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.generation.batch import Batch, DraftModel
from jaxlm.generation.batching import padded
from jaxlm.generation.programs import TOP
from jaxlm.generation.settings import GenerationError, PastContext, Rules, settings_of_rows
from jaxlm.generation.speculation import Lookup
from jaxlm.models import CausalLM


@dataclass(frozen=True)
class Scored:
    """New tokens with their log-probabilities in nats by the model itself, before all rules."""

    tokens: Int[np.ndarray, "B M"]  # pad after the last
    counts: Int[np.ndarray, " B"]  # how many tokens each row has
    log_probs: Float[np.ndarray, "B M"]  # 0 behind them
    top_tokens: Int[np.ndarray, "B M k"]  # the likeliest tokens at each place, in order
    top_log_probs: Float[np.ndarray, "B M k"]


def generate_tokens(
    model: CausalLM,
    params: Any,
    ids: Int[Array | np.ndarray, "B T"],
    lengths: Int[Array | np.ndarray, " B"] | None = None,
    max_new_tokens: int | Sequence[int] = 64,
    temperature: float | Sequence[float] = 1.0,
    top_k: int | Sequence[int] | None = None,
    top_p: float | Sequence[float] | None = None,
    stop_tokens: Sequence[int] = (),
    pad_id: int = 0,
    seed: int | Sequence[int] = 0,
    past_context: PastContext = "slide",
    speculation: Lookup | DraftModel | None = None,
    **rules: Unpack[Rules],
) -> Int[np.ndarray, "B M"]:
    """Continue each row of ids by M = `max_new_tokens` tokens, the stop token included, then pad.

    Rows may be right-padded, with their `lengths` (default: T). Any number may be a sequence with
    a value for each row; `Settings` tells what the numbers mean. Token t of row i is drawn with the
    key fold_in(fold_in(key(seed), i), t), and a row comes out as it would alone at its place. With
    a sequence of seeds row i draws as the first row of its own seed. Speculation changes the speed
    and not the tokens.

    When a row would hold more than the model's `max_seq_len` tokens, prompt included, "slide" goes
    on with its last `max_seq_len // 2` (the newest token among them) at positions from 0, as often
    as needed; "refuse" raises. Raises GenerationError or ConfigError for bad arguments.
    """
    prompts = split_rows(ids, lengths, model.config.vocab_size)
    settings = settings_of_rows(
        len(prompts),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop_tokens=stop_tokens,
        seed=seed,
        past_context=past_context,
        **rules,
    )
    batch = Batch(model, params, prompts, settings, speculation=speculation)
    while not batch.done:
        batch.advance()
    width = int(np.max(max_new_tokens))
    return padded([row.generated for row in batch.rows], (len(prompts), width), pad_id)


def score_tokens(
    model: CausalLM,
    params: Any,
    ids: Int[Array | np.ndarray, "B T"],
    lengths: Int[Array | np.ndarray, " B"] | None = None,
    pad_id: int = 0,
    speculation: Lookup | DraftModel | None = None,
    **settings: Any,
) -> Scored:
    """What `generate_tokens` returns, with the log-probabilities of the tokens and the likeliest.

    `settings` are the fields of `Settings`, numbers also as sequences with a value a row.
    """
    prompts = split_rows(ids, lengths, model.config.vocab_size)
    rows = settings_of_rows(len(prompts), **settings)
    batch = Batch(model, params, prompts, rows, speculation=speculation, report=True)
    while not batch.done:
        batch.advance()
    B, M = len(rows), max((len(row.generated) for row in batch.rows), default=0)
    k = min(TOP, model.config.vocab_size or 0)
    out = Scored(
        tokens=padded([row.generated for row in batch.rows], (B, M), pad_id),
        counts=np.array([len(row.generated) for row in batch.rows], np.int32),
        log_probs=np.zeros((B, M), np.float32),
        top_tokens=np.full((B, M, k), pad_id, np.int32),
        top_log_probs=np.zeros((B, M, k), np.float32),
    )
    for i, row in enumerate(batch.rows):
        for name in ("log_probs", "top_tokens", "top_log_probs"):
            getattr(out, name)[i, : out.counts[i]] = np.concatenate(row.reported[name])
    return out


def split_rows(
    ids: Int[Array | np.ndarray, "B T"],
    lengths: Int[Array | np.ndarray, " B"] | None,
    vocab_size: int | None,
) -> list[list[int]]:
    """The rows of ids without their padding; GenerationError unless each is a prompt."""
    ids = np.asarray(ids)
    lengths = np.full(len(ids), ids.shape[1]) if lengths is None else np.asarray(lengths)
    if lengths.shape != ids.shape[:1]:
        raise GenerationError(f"{len(ids)} rows of ids need as many lengths, got {lengths.shape}")
    rows = []
    for i, (row, length) in enumerate(zip(ids, lengths, strict=True)):
        if not 1 <= length <= len(row):
            raise GenerationError(
                f"row {i} of ids has length {length}, but a prompt has 1 to {len(row)} tokens"
            )
        row = row[:length]
        if vocab_size is not None and (row.min() < 0 or row.max() >= vocab_size):
            wrong = row[(row < 0) | (row >= vocab_size)][0]
            raise GenerationError(
                f"row {i} of ids holds {wrong}, but the model's tokens are 0 to {vocab_size - 1}"
            )
        rows.append(row.tolist())
    return rows
