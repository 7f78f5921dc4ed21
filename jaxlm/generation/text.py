"""Text in, text out: prompts through the tokenizer, the decoding loop, and back."""

import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.generation.decode import generate_tokens, padded
from jaxlm.generation.settings import GenerationError, PastContext
from jaxlm.models import CausalLM
from jaxlm.tokenizer import Tokenizer


def generate(
    loaded: Loaded,
    prompts: list[str],
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    past_context: PastContext = "slide",
) -> list[str]:
    """Continue each prompt and return the continuations alone; settings as for `generate_tokens`.

    A continuation ends before the tokenizer's eos. An empty prompt starts from the tokenizer's bos,
    else its eos; without either it raises GenerationError.
    """
    if isinstance(prompts, str):
        raise GenerationError("prompts must be a list of texts, not one text")
    if not isinstance(loaded.model, CausalLM):
        raise GenerationError(f"a {type(loaded.model).__name__} does not continue texts")
    tokenizer, eos_id = loaded.tokenizer, loaded.tokenizer.eos_id
    rows = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    lengths = np.array([len(row) for row in rows], np.int32)
    ids = padded(rows, (len(rows), max(map(len, rows), default=1)), 0)
    tokens = generate_tokens(
        loaded.model,
        loaded.params,
        ids,
        lengths,
        max_new_tokens,
        temperature,
        top_k,
        top_p,
        stop_tokens=[] if eos_id is None else [eos_id],
        seed=seed,
        past_context=past_context,
    )
    return [continuation(tokenizer, *pair) for pair in zip(rows, tokens.tolist(), strict=True)]


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a prompt, or the token that opens a text where there are none."""
    ids = tokenizer.encode(prompt)
    if ids:
        return ids
    opening = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    if opening is None:
        raise GenerationError(
            "the prompt is empty and this tokenizer has no token that opens a text; give at least "
            "one character"
        )
    return [opening]


def continuation(tokenizer: Tokenizer, prompt: list[int], new: list[int]) -> str:
    """The text that new tokens add to a prompt's, up to the first eos."""
    if tokenizer.eos_id in new:
        new = new[: new.index(tokenizer.eos_id)]
    before, whole = tokenizer.decode(prompt), tokenizer.decode(prompt + new)
    # Decoded alone, the new tokens would lose the space that some tokenizers keep between words.
    return whole[len(before) :] if whole.startswith(before) else tokenizer.decode(new)
