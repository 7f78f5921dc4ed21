"""Masked tokens guessed by a masked language model."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxlm.artifact import Loaded
from jaxlm.config.schema import require
from jaxlm.generation.options import GenerationError
from jaxlm.models import MaskedLM
from jaxlm.ops.padding import bucket, pad_rows
from jaxlm.tokenizer import Tokenizer

SHORTEST = 32  # tokens that a text is padded to at least


class Filled(NamedTuple):
    """A text with its masks filled by the likeliest tokens, and of each mask the candidates."""

    text: str
    candidates: list[list[tuple[str, float]]]  # (token, probability), the likeliest first


def fill(loaded: Loaded, texts: list[str], top: int = 5) -> list[Filled]:
    """Guess what stands at each mask token of each text, one mask independent of the others.

    Raises GenerationError where a text has no mask or is longer than the model's context, and for
    a model that is no MaskedLM.
    """
    require(top >= 1, "top", "at least 1", top)
    if not isinstance(loaded.model, MaskedLM):
        raise GenerationError(f"a {type(loaded.model).__name__} does not fill masks")
    return [fill_text(loaded, text, top) for text in texts]


def fill_text(loaded: Loaded, text: str, top: int) -> Filled:
    tokenizer = loaded.tokenizer
    mask = tokenizer.special_token("mask_token") or "[MASK]"
    ids = tokenizer.backend.encode(text).ids
    if tokenizer.mask_id is None or tokenizer.mask_id not in ids:
        raise GenerationError(
            f"the text has no mask to fill: write {mask} where a token is missing"
        )
    candidates = [
        likeliest_tokens(tokenizer, probabilities, top)
        for probabilities in mask_probabilities(loaded, ids, tokenizer.mask_id)
    ]
    # Put into the text itself, whose spacing decoding would lose.
    filled = text
    for tokens in candidates:
        filled = filled.replace(mask, tokens[0][0].removeprefix("##"), 1)
    return Filled(filled, candidates)


def mask_probabilities(
    loaded: Loaded, ids: Sequence[int], mask_id: int
) -> Float[np.ndarray, "M V"]:
    """The model's distribution over the vocabulary at each of the M masks."""
    limit = loaded.config.max_seq_len
    if len(ids) > limit:
        raise GenerationError(f"the text has {len(ids)} tokens, but the model takes {limit}")
    padded = pad_rows([ids], (1, bucket(len(ids), SHORTEST, limit)))
    real = np.arange(padded.shape[1])[None] < len(ids)
    logits = np.asarray(masked_logits(loaded.model, loaded.params, padded, real))[0]
    return np.asarray(jax.nn.softmax(logits[np.flatnonzero(np.equal(ids, mask_id))], axis=-1))


@partial(jax.jit, static_argnames="model")
def masked_logits(
    model: MaskedLM, params: Any, ids: Int[Array, "B T"], attention_mask: Bool[Array, "B T"]
) -> Float[Array, "B T V"]:
    logits: Any = model.apply({"params": params}, ids, attention_mask=attention_mask)
    # A `pretraining` head gives next-sentence logits, too.
    return logits[0] if isinstance(logits, tuple) else logits


def likeliest_tokens(
    tokenizer: Tokenizer, probabilities: Float[np.ndarray, " V"], top: int
) -> list[tuple[str, float]]:
    """The `top` likeliest tokens that are not special: the mask or an end of text fills no gap."""
    added = tokenizer.backend.get_added_tokens_decoder()
    special = [i for i in added if added[i].special]
    order = np.argsort(-probabilities)
    best = order[~np.isin(order, special)][:top]
    return [
        (tokenizer.decode([i], skip_special_tokens=False), float(probabilities[i]))
        for i in best.tolist()
    ]
