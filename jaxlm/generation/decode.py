"""Token generation: prompts into batches of few sizes, and the loop on the host around them."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxlm.generation.programs import CHUNK, Rule, decode, prefill, slide
from jaxlm.generation.sampling import Sampling
from jaxlm.generation.settings import GenerationError, PastContext, Settings
from jaxlm.models import CausalLM

# Sizes are rounded up to powers of two, from these, so that a handful of programs serves all.
SMALLEST_PROMPT = 32
SMALLEST_CACHE = 128


def generate_tokens(
    model: CausalLM,
    params: Any,
    ids: Int[Array | np.ndarray, "B T"],
    lengths: Int[Array | np.ndarray, " B"] | None = None,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_tokens: Sequence[int] = (),
    pad_id: int = 0,
    seed: int = 0,
    past_context: PastContext = "slide",
) -> Int[np.ndarray, "B M"]:
    """Continue each row of ids by M = `max_new_tokens` tokens, the stop token included, then pad.

    Rows may be right-padded, with their `lengths` (default: T). Token t of row i is drawn with the
    key fold_in(fold_in(key(seed), i), t), and a row comes out as it would alone at its place.

    When a row would hold more than the model's `max_seq_len` tokens, prompt included, "slide" goes
    on with its last `max_seq_len // 2` (the newest token among them) at positions from 0, as often
    as needed; "refuse" raises. Raises GenerationError or ConfigError for bad arguments.
    """
    settings = Settings(max_new_tokens, temperature, top_k, top_p, seed, past_context)
    prompts = split_rows(ids, lengths, model.config.vocab_size)
    out = np.full((len(prompts), max_new_tokens), pad_id, np.int32)
    start = 0
    for new in generate_chunks(model, params, prompts, settings, stop_tokens, pad_id):
        out[:, start : start + new.shape[1]] = new
        start += new.shape[1]
    return out


def split_rows(
    ids: Int[Array | np.ndarray, "B T"],
    lengths: Int[Array | np.ndarray, " B"] | None,
    vocab_size: int,
) -> list[np.ndarray]:
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
        if row.min() < 0 or row.max() >= vocab_size:
            wrong = row[(row < 0) | (row >= vocab_size)][0]
            raise GenerationError(
                f"row {i} of ids holds {wrong}, but the model's tokens are 0 to {vocab_size - 1}"
            )
        rows.append(row.astype(np.int32))
    return rows


def generate_chunks(
    model: CausalLM,
    params: Any,
    prompts: list[np.ndarray],
    settings: Settings,
    stop_tokens: Sequence[int],
    pad_id: int,
) -> Iterator[Int[np.ndarray, "B n"]]:
    """Yield the new tokens of each dispatch, until there are enough or all rows have stopped."""
    if not prompts:
        return
    limit = model.config.max_seq_len
    longest = max(map(len, prompts))
    # The last token generated takes no place.
    if settings.past_context == "refuse" and longest + settings.max_new_tokens - 1 > limit:
        raise GenerationError(
            f"a prompt of {longest} tokens and {settings.max_new_tokens} new ones do not fit the "
            f"model's context of {limit}"
        )
    kept = max(1, limit // 2)
    # What each row goes on from.
    rows = [prompt if len(prompt) <= limit else prompt[-kept:] for prompt in prompts]
    batch_size = bucket(len(rows), 1)
    prompt_size = bucket(max(map(len, rows)), SMALLEST_PROMPT)
    num_slots = bucket(prompt_size + settings.max_new_tokens, SMALLEST_CACHE)
    ids = padded(rows, (batch_size, min(prompt_size, limit)), 0)
    lengths = padded([[len(row) for row in rows]], (1, batch_size), 0)[0]
    stops = padded([stop_tokens], (1, bucket(len(stop_tokens), 8)), -1)[0]
    rule = Rule(
        sampling=batch_settings(settings, batch_size, model.config.vocab_size),
        seed=jnp.asarray(np.uint32(settings.seed % 2**32)),
        stops=jnp.asarray(stops),
        pad_id=jnp.asarray(np.int32(pad_id)),
    )
    state = prefill(model, params, ids, lengths, min(num_slots, limit))
    remaining = settings.max_new_tokens
    while True:
        state, out, count = decode(model, params, state, rule, min(remaining, CHUNK))
        new = np.asarray(out)[: len(rows), : int(count)]
        yield new
        remaining -= int(count)
        done = np.array(state.done)
        if remaining == 0 or done.all():
            return
        rows = [np.concatenate([row, more])[-kept:] for row, more in zip(rows, new, strict=True)]
        for i in np.flatnonzero(~done & (np.array(state.cache.lengths) == limit)):
            state = slide(model, params, state, rows[i], i)


def batch_settings(settings: Settings, batch_size: int, vocab_size: int) -> Sampling:
    """The settings as arrays, the same for each row; what is not set keeps every token."""
    top_k = vocab_size if settings.top_k is None else min(settings.top_k, vocab_size)
    top_p = 1.0 if settings.top_p is None else settings.top_p
    # Filled by NumPy: JAX would compile a program to do it.
    return Sampling(
        temperature=jnp.asarray(np.full(batch_size, settings.temperature, np.float32)),
        top_k=jnp.asarray(np.full(batch_size, top_k, np.int32)),
        top_p=jnp.asarray(np.full(batch_size, top_p, np.float32)),
    )


def bucket(size: int, smallest: int) -> int:
    """The power of two, `smallest` or more, that holds `size`."""
    return max(smallest, 1 << (size - 1).bit_length())


def padded(rows: Sequence[Any], shape: tuple[int, int], fill: int) -> Int[np.ndarray, "B T"]:
    out = np.full(shape, fill, np.int32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out
