"""Token vectors and states as geometry: neighbours, arithmetic, one word in two texts, PCA."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.artifact import Loaded, check_loaded
from jaxlm.inspection.arguments import (
    as_numbers,
    check_number,
    check_one_trunk,
    in_a_line,
    list_of_texts,
)
from jaxlm.inspection.lenses import residual_stream
from jaxlm.inspection.naming import InspectionError
from jaxlm.inspection.predictions import token_texts
from jaxlm.inspection.saliency import cosine
from jaxlm.models.activations import token_vectors


class Neighbour(NamedTuple):
    """A token, and the cosine of the angle between its vector and another."""

    id: int
    text: str
    similarity: float


def word_vector(loaded: Loaded, text: str) -> Float[Array, " D"]:
    """The embedding of a word: the mean over its tokens' vectors.

    Raises: InspectionError for an empty or an unknown word, and for an encoder-decoder.
    """
    check_loaded(loaded)
    check_one_trunk(loaded.model, "word_vector")
    ids = loaded.tokenizer.encode(text)
    if not ids:
        raise InspectionError("an empty text has no vector")
    if loaded.tokenizer.unk_id in ids:
        raise InspectionError(f"the vocabulary has no tokens for {text!r}: it has no vector")
    return jnp.asarray(token_vectors(loaded.params)[jnp.asarray(ids)]).mean(0)


def nearest_tokens(
    loaded: Loaded, vector: Float[Array, " D"], top: int = 10, without: Sequence[int] = ()
) -> list[Neighbour]:
    """The tokens whose embeddings point most nearly as a vector does, nearest first."""
    check_number("top", top, 1)
    size = loaded.tokenizer.vocab_size
    similarity = cosine(jnp.asarray(token_vectors(loaded.params)[:size]), vector[None])
    similarity = similarity.at[jnp.array(without, int)].set(-2.0) if without else similarity
    values, ids = jax.lax.top_k(similarity, min(top, size - len(set(without))))
    texts = token_texts(loaded.tokenizer, ids)
    rows = zip(ids.tolist(), texts, values.tolist(), strict=True)
    return [Neighbour(*row) for row in rows]


def neighbours(loaded: Loaded, text: str, top: int = 10) -> list[Neighbour]:
    """The tokens nearest to a word in the embedding, without its own."""
    vector = word_vector(loaded, text)
    return nearest_tokens(loaded, vector, top, loaded.tokenizer.encode(text))


def analogy(
    loaded: Loaded, plus: str | Sequence[str], minus: str | Sequence[str] = (), top: int = 10
) -> list[Neighbour]:
    """Tokens near the sum of some words less others (Mikolov et al. 2013).

    ["king", "woman"], ["man"] asks what is to woman as king is to man. Vectors have length 1 before
    they are added; the words themselves are left out.

    Raises: InspectionError for an empty or an unknown word, and where there is none to add.
    """
    check_loaded(loaded)
    added, taken = list_of_texts("plus", plus), list_of_texts("minus", minus)
    if not added:
        raise InspectionError("plus is empty; give one word or more")
    words, used = [(1.0, word) for word in added] + [(-1.0, word) for word in taken], []
    total = jnp.zeros(loaded.config.d_model)
    for sign, word in words:
        vector = word_vector(loaded, word)
        total += sign * vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)
        used += loaded.tokenizer.encode(word)
    return nearest_tokens(loaded, total, top, used)


def states_of_word(loaded: Loaded, text: str, word: str) -> Float[Array, "M D"]:
    """A word's states in a text, after the embeddings and each block: the mean over its tokens.

    Raises: InspectionError where the text does not hold the word.
    """
    check_loaded(loaded)
    check_one_trunk(loaded.model, "word_in_contexts")
    for given in (text, word):
        if not isinstance(given, str):
            raise InspectionError(f"texts and word must be texts, got {in_a_line(given)}")
    start = text.find(word)
    if start < 0 or not word:
        raise InspectionError(f"the text {text!r:.60} does not hold the word {word!r}")
    encoder = loaded.config.architecture == "encoder"
    loaded.tokenizer.encode(text)  # tells of characters that the vocabulary lacks
    encoding = loaded.tokenizer.backend.encode(text, add_special_tokens=encoder)
    stop = start + len(word)
    inside = [a < stop and b > start and b > a for a, b in encoding.offsets]
    if not any(inside):
        raise InspectionError(f"no token of the text {text!r:.60} stands for {word!r}")
    stream = residual_stream(loaded.model, loaded.params, jnp.asarray([encoding.ids]))
    return stream[:, 0][:, np.flatnonzero(inside)].mean(1)


def word_in_contexts(loaded: Loaded, first: str, second: str, word: str) -> Float[Array, " M"]:
    """How alike the states of a word in two texts are after each block: cosines, embeddings first.

    Contextual models tell the senses of a word apart as layers go by (Ethayarajh 2019).
    """
    return cosine(states_of_word(loaded, first, word), states_of_word(loaded, second, word))


class PrincipalComponents(NamedTuple):
    """States seen along the directions in which they differ most."""

    coordinates: Float[Array, "n k"]
    components: Float[Array, "k D"]  # of length 1
    explained: Float[Array, " k"]  # shares of the variance


def principal_components(states: Float[Array, "n D"], k: int = 2) -> PrincipalComponents:
    """The first k principal components of states (Pearson 1901), largest variance first.

    The sign of each is such that its largest entry is positive.

    Raises: InspectionError for less than two states, and for a k above n or D.
    """
    given = as_numbers("states", states, "n, D").astype(jnp.float32)
    if len(given) < 2:
        raise InspectionError("states must be two or more: those of one do not differ")
    check_number("k", k, 1, min(given.shape))
    centred: Any = given - given.mean(0)
    left, sizes, right = jnp.linalg.svd(centred, full_matrices=False)
    largest = jnp.take_along_axis(right, jnp.abs(right).argmax(1, keepdims=True), axis=1)[:, 0]
    signs = jnp.where(largest < 0, -1.0, 1.0)
    explained = sizes**2 / jnp.maximum((sizes**2).sum(), 1e-30)
    coordinates = left * sizes * signs
    return PrincipalComponents(coordinates[:, :k], (right * signs[:, None])[:k], explained[:k])
