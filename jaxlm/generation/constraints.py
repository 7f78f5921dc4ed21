"""Text that must match: masks over the vocabulary from a regular expression or a JSON schema."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import UInt32

from jaxlm.generation.detokenizing import is_wide
from jaxlm.generation.settings import GenerationError
from jaxlm.tokenizer import Tokenizer


class Constraint:
    """What one row's text must match, and how far it has come.

    `allowed` is a mask for the next token, a bit a token; `accept` takes the token that was chosen.
    `finished` tells that the text is whole and nothing may follow. Raises GenerationError for a
    grammar that cannot be read, or without the `constrain` extra.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, grammar: str):
        library = load_library()
        self.vocab_size = vocab_size
        vocabulary = vocabulary_of(tokenizer, vocab_size)
        self.matcher = library.LLMatcher(vocabulary, grammar, log_level=0)
        if self.matcher.is_error():
            reason = self.matcher.get_error().strip().splitlines()[0]
            raise GenerationError(f"the constraint cannot be read: {reason}")

    def allowed(self) -> UInt32[np.ndarray, " W"]:
        words = np.frombuffer(self.matcher.compute_bitmask(), np.uint32)
        return words[: -(-self.vocab_size // 32)]

    def accept(self, token: int) -> None:
        if not self.matcher.consume_token(token):
            raise GenerationError("no token of the vocabulary can go on as the constraint asks")

    @property
    def finished(self) -> bool:
        return self.matcher.is_stopped()


def grammar_of(regex: str | None, json_schema: str | Mapping[str, Any] | None) -> str:
    """The library's grammar of one of the two."""
    library = load_library()
    if regex is not None and json_schema is not None:
        raise GenerationError("give a regular expression or a JSON schema, not both")
    if json_schema is None:
        return library.LLMatcher.grammar_from_regex(regex)
    try:
        schema = json.loads(json_schema) if isinstance(json_schema, str) else dict(json_schema)
        return library.LLMatcher.grammar_from_json_schema(schema)
    except ValueError as error:
        raise GenerationError(f"the JSON schema cannot be read: {error}") from None


def load_library() -> Any:
    try:
        import llguidance  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise GenerationError(
            'text that must match needs the package llguidance: pip install "jaxlm[constrain]"'
        ) from None
    return llguidance


@lru_cache(maxsize=2)
def vocabulary_of(tokenizer: Tokenizer, vocab_size: int) -> Any:
    """The library's table of what each token adds to a text, in bytes."""
    library = load_library()
    pieces, specials = token_bytes(tokenizer, vocab_size)
    # Where no token ends a text, one that no model can choose does.
    eos_id = tokenizer.eos_id
    if eos_id is None:
        eos_id = len(pieces)
        pieces, specials = [*pieces, b"<end>"], [*specials, eos_id]

    class Vocabulary:
        eos_token_id = eos_id
        bos_token_id = None
        tokens = pieces
        special_token_ids = specials

        def __call__(self, text: str) -> list[int]:
            return tokenizer.encode(text if isinstance(text, str) else text.decode())

    return library.LLTokenizer(library.TokenizerWrapper(Vocabulary()))


def token_bytes(tokenizer: Tokenizer, vocab_size: int) -> tuple[list[bytes], list[int]]:
    """What each token adds to a text, nothing for those without text, and the special tokens."""
    backend = tokenizer.backend
    decoder = type(backend.decoder).__name__
    specials = [i for i, token in backend.get_added_tokens_decoder().items() if token.special]
    alphabet = byte_alphabet()
    pieces = [b""] * max(vocab_size, tokenizer.vocab_size)
    for token, i in backend.get_vocab().items():
        if decoder == "ByteLevel":
            known = all(character in alphabet for character in token)
            piece = bytes(alphabet[c] for c in token) if known else token.encode()
        elif decoder == "WordPiece":
            piece = token.removeprefix("##").encode()
            if not token.startswith("##") and not is_wide(token):
                piece = b" " + piece
        elif len(token) == 6 and token.startswith("<0x"):
            piece = bytes([int(token[3:5], 16)])
        else:
            piece = token.replace("\u2581", " ").encode()
        pieces[i] = piece
    return pieces, specials


def byte_alphabet() -> dict[str, int]:
    """The byte that each character stands for in byte-level vocabularies (Radford et al. 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
