"""Targets of an encoder-decoder for source texts, each by beam search or token by token."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.config.schema import require
from jaxlm.generation.options import GenerationError
from jaxlm.generation.text import best_texts, generate
from jaxlm.generation.text_batch import listed_texts, rows_of

LONGER = 50  # tokens that a target may be longer than its source (Vaswani et al. 2017)
ROWS = 64  # translated together at most, with all of their beams


def translate(
    loaded: Loaded,
    texts: Iterable[str] | str,
    max_new_tokens: int | None = None,
    num_beams: int | None = None,
    length_penalty: float | None = None,
    n_best: int | None = None,
    temperature: float = 0.0,
    **options: Any,
) -> Any:
    """The target that the model writes for each source text: translation, summary or answer.

    A list of texts gives a list of texts, a text one; with `n_best` a list of so many (text, score)
    of each, best first. With several beams it is the best that `beam_search` finds, else each token
    is the likeliest, or drawn at a temperature; `options` are then those of `generate`. What is
    None comes from the generation_config of the model's files, else there is one beam, and a target
    is at most 50 tokens longer than the longest source beside it.

    Raises: GenerationError for a model that is no encoder-decoder, or a text that is too long.
    """
    if loaded.config.architecture != "encoder_decoder":
        raise GenerationError(
            f"a {type(loaded.model).__name__} translates no texts: it is no encoder_decoder"
        )
    if isinstance(texts, str):
        (found,) = translate(
            loaded, [texts], max_new_tokens, num_beams, length_penalty, n_best, temperature,
            **options,
        )  # fmt: skip
        return found
    texts = listed_texts("texts", texts)
    theirs = loaded.origin.get("generation_config") or {}
    if num_beams is None:
        num_beams = int(theirs.get("num_beams") or 1) if not temperature else 1
    num_beams = max(num_beams, n_best or 1)
    if length_penalty is None:
        penalty = theirs.get("length_penalty")
        length_penalty = 1.0 if penalty is None else float(penalty)
    require(num_beams == 1 or not temperature, "temperature", "0 with beams", temperature)
    if num_beams > 1 and options:
        raise GenerationError(f"beam search has no option {min(options)!r}")
    _, sources = rows_of(loaded, texts)
    lengths = [len(source) for source in sources or []]
    order = np.argsort(lengths, kind="stable")
    found: list[Any] = [None] * len(texts)
    for i in range(0, len(texts), ROWS):
        part = order[i : i + ROWS].tolist()
        most = max_new_tokens or target_limit(loaded, max(lengths[j] for j in part))
        chosen = [texts[j] for j in part]
        if num_beams == 1 and n_best is None:
            written = generate(loaded, chosen, most, temperature=temperature, **options)
        else:
            best = best_texts(loaded, chosen, most, num_beams, n_best or 1, length_penalty)
            written = best if n_best else [row[0][0] for row in best]
        for j, text in zip(part, written, strict=True):
            found[j] = text
    return found


def target_limit(loaded: Loaded, source_length: int) -> int:
    """How many tokens a target may have where nobody says it."""
    theirs, limit = loaded.origin.get("generation_config") or {}, loaded.config.max_seq_len
    if theirs.get("max_new_tokens"):
        return min(theirs["max_new_tokens"], limit)
    if theirs.get("max_length"):
        return min(theirs["max_length"] - 1, limit)  # theirs counts the token before the first
    return min(source_length + LONGER, limit)
