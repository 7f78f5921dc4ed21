"""What a model predicts: the likeliest next tokens, and how expected each token of a text was."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.generation.detokenizer import BROKEN
from jaxlm.inspection.arguments import (
    array_of_ids,
    as_numbers,
    check_entries,
    check_number,
    in_a_line,
)
from jaxlm.inspection.naming import InspectionError
from jaxlm.tokenizer import Tokenizer
from jaxlm.tokenizer.classes import byte_alphabet, in_bytes


class Candidate(NamedTuple):
    """A token that may come next."""

    id: int
    text: str
    logit: float
    probability: float


def token_texts(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray | Array) -> list[str]:
    """The text of each token alone; bytes that are part of a character show as "<E698>".

    An id that is no token, as a vocabulary that was made longer has them, shows as "#300".

    Raises: InspectionError for what is no tokenizer or no list of its ids.
    """
    require_tokenizer(tokenizer)
    row = array_of_ids("ids", ids) if np.size(ids) else np.zeros((1, 0), np.int32)
    if len(row) != 1:
        raise InspectionError(f"token_texts reads one row of ids, got {len(row)}")
    check_number("each id", int(row.min(initial=0)), 0)
    alphabet = byte_alphabet() if in_bytes(tokenizer.backend) else {}
    texts = []
    for token in np.asarray(row)[0].tolist():
        name = tokenizer.backend.id_to_token(token)
        if name is None:
            texts.append(f"#{token}")
            continue
        shown = tokenizer.decode([token], skip_special_tokens=False)
        # Alone, WordPiece's "##ing" would look like a word, and a space would vanish.
        keeps = shown and BROKEN not in shown and not name.startswith(("##", "▁"))
        if not keeps and name and all(letter in alphabet for letter in name):
            texts.append(readable_bytes(bytes(alphabet[letter] for letter in name)))
        else:
            texts.append(shown if keeps else name)
    return texts


def readable_bytes(content: bytes) -> str:
    """Bytes as UTF-8, those that make no whole character as numbers: "a<E698>"."""
    text = content.decode("utf-8", errors="surrogateescape")
    numbers = lambda part: "".join(f"{ord(byte) - 0xDC00:02X}" for byte in part[0])  # noqa: E731
    return re.sub("[\udc80-\udcff]+", lambda part: f"<{numbers(part)}>", text)


def require_tokenizer(tokenizer: Any) -> None:
    """Raise InspectionError for what is no tokenizer, such as the model it belongs to."""
    if not isinstance(tokenizer, Tokenizer):
        got = in_a_line(tokenizer)
        raise InspectionError(f"tokenizer must be one such as loaded.tokenizer, got {got}")


def next_token_table(
    tokenizer: Tokenizer, logits: Float[Array, " V"], top: int = 10
) -> list[Candidate]:
    """The likeliest tokens by logits, likeliest first, with their softmax probabilities.

    Raises: InspectionError for what is no tokenizer, no row of logits or no number of tokens.
    """
    require_tokenizer(tokenizer)
    check_number("top", top, 1)
    logits = as_numbers("logits", logits, "V").astype(jnp.float32)
    values, ids = jax.lax.top_k(logits, min(top, len(logits)))
    chances = np.exp(np.asarray(values) - float(jax.nn.logsumexp(logits)))
    rows = zip(
        np.asarray(ids).tolist(), token_texts(tokenizer, ids), values.tolist(), chances, strict=True
    )
    return [Candidate(token, text, value, float(chance)) for token, text, value, chance in rows]


class TokenScores(NamedTuple):
    """How expected each token but the first of a text was, given those before it."""

    loss: Float[Array, "*B U"]  # U = T - 1; nats
    surprise: Float[Array, "*B U"]  # the same in bits
    rank: Int[Array, "*B U"]  # how many tokens were likelier
    entropy: Float[Array, "*B U"]  # of the whole distribution, in nats


def token_scores(logits: Float[Array, "*B T V"], ids: Int[Array, "*B T"]) -> TokenScores:
    """Loss, surprise and rank of the tokens of a text by a causal model's logits.

    Surprise in bits predicts reading times (Hale 2001; Levy 2008).

    Raises: InspectionError for ids that are not those of the logits.
    """
    logits, ids = as_numbers("logits", logits, "..., T, V"), as_numbers("ids", ids, "...")
    if logits.shape[:-1] != ids.shape:
        raise InspectionError(
            f"logits of the shape {logits.shape} are not those of ids of the shape {ids.shape}"
        )
    check_entries("ids", ids, logits.shape[-1])
    log_probs = jax.nn.log_softmax(logits[..., :-1, :])
    targets = ids[..., 1:, None]
    chosen = jnp.take_along_axis(log_probs, targets, axis=-1)
    loss = -chosen[..., 0]
    entropy = -(jnp.exp(log_probs) * jnp.maximum(log_probs, -1e30)).sum(-1)
    return TokenScores(loss, loss / jnp.log(2.0), (log_probs > chosen).sum(-1), entropy)
