"""Masked tokens guessed: what a masked language model is asked."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.config.schema import require
from jaxlm.generation.settings import GenerationError
from jaxlm.models import MaskedLM

LENGTH_STEP = 32  # lengths are rounded up to its multiples, so that few programs are compiled

apply = jax.jit(
    lambda model, params, ids, mask: model.apply({"params": params}, ids, attention_mask=mask),
    static_argnums=0,
)


class Filled(NamedTuple):
    """A text with its masks filled by the likeliest tokens, and of each mask the candidates."""

    text: str
    candidates: list[list[tuple[str, float]]]  # (token, probability), the likeliest first


def fill(loaded: Loaded, texts: list[str], top: int = 5) -> list[Filled]:
    """Guess what stands at each mask token of each text, one mask independent of the others.

    GenerationError where a text has no mask or is longer than the model, or the model does not
    guess.
    """
    require(top >= 1, "top", "at least 1", top)
    if not isinstance(loaded.model, MaskedLM):
        raise GenerationError(f"a {type(loaded.model).__name__} does not fill masks")
    return [fill_one(loaded, text, top) for text in texts]


def fill_one(loaded: Loaded, text: str, top: int) -> Filled:
    tokenizer, limit = loaded.tokenizer, loaded.config.max_seq_len
    mask_id = tokenizer.mask_id
    ids = np.array(tokenizer.backend.encode(text).ids, np.int32)
    if mask_id is None or mask_id not in ids:
        mask = tokenizer.special_token("mask_token") or "[MASK]"
        raise GenerationError(
            f"the text has no mask to fill: write {mask} where a token is missing"
        )
    if len(ids) > limit:
        raise GenerationError(f"the text has {len(ids)} tokens, but the model takes {limit}")
    length = min(limit, -(-len(ids) // LENGTH_STEP) * LENGTH_STEP)
    padded = np.zeros((1, length), np.int32)
    padded[0, : len(ids)] = ids
    real = np.arange(length)[None] < len(ids)
    logits = apply(loaded.model, loaded.params, jnp.asarray(padded), jnp.asarray(real))
    logits = np.asarray(logits[0] if isinstance(logits, tuple) else logits)[0]
    places = np.flatnonzero(ids == mask_id)
    chances = np.asarray(jax.nn.softmax(logits[places], axis=-1))
    # The mask itself, or the end of a text, fills no gap.
    added = tokenizer.backend.get_added_tokens_decoder()
    special = [i for i in added if added[i].special and i < chances.shape[1]]
    order = np.argsort(-chances, axis=-1)
    best = order[~np.isin(order, special)].reshape(len(order), -1)[:, :top]
    candidates = [
        [(tokenizer.decode([i], skip_special_tokens=False), float(row[i])) for i in order.tolist()]
        for row, order in zip(chances, best, strict=True)
    ]
    # Put into the text itself, whose spacing decoding would lose.
    mask = tokenizer.special_token("mask_token") or "[MASK]"
    filled = text
    for options in candidates:
        filled = filled.replace(mask, options[0][0].removeprefix("##"), 1)
    return Filled(filled, candidates)
