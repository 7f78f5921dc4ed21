"""Text that must match: masks over the vocabulary from a regular expression or a JSON schema."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt32

from jaxlm.generation.detokenizing import joins_words
from jaxlm.generation.pieces import Pieces, pieces_of
from jaxlm.generation.settings import GenerationError
from jaxlm.tokenizer import Tokenizer


class Constraint:
    """What one row's text must match, and how far it has come.

    `allowed` is a mask for the next token, a bit a token; `accept` takes the token that was chosen.
    `finished` tells that the text is whole and nothing may follow. Raises GenerationError for a
    grammar that cannot be read, or without the `constrain` extra.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, grammar: str, prompt: Sequence[int]):
        self.vocab_size = vocab_size
        self.vocabulary = vocabulary_of(tokenizer, vocab_size)
        self.matcher = load_library().LLMatcher(self.vocabulary.table, grammar, log_level=0)
        self.last = tokenizer.decode(prompt)[-1:]  # character of the text
        if self.matcher.is_error():
            reason = self.matcher.get_error().strip().splitlines()[0]
            raise GenerationError(f"the constraint cannot be read: {reason}")

    def allowed(self) -> UInt32[np.ndarray, " W"]:
        bits = np.zeros(-(-self.vocab_size // 32) * 32, bool)
        bits[: self.vocab_size] = self._bits()
        return np.packbits(bits, bitorder="little").view(np.uint32)

    def _bits(self) -> Bool[np.ndarray, " V"]:
        words = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
        bits = np.unpackbits(words, bitorder="little").astype(bool)[self._places()]
        return (bits & self.vocabulary.pieces.possible(self.last))[: self.vocab_size]

    def _places(self) -> Int[np.ndarray, " P"]:
        """Where in the library's table each token stands, coming next."""
        plain, joined = self.vocabulary.places
        return np.where(self.vocabulary.pieces.joins(self.last), joined, plain)

    def accept(self, token: int) -> None:
        if not self.matcher.consume_token(int(self._places()[token])):
            raise GenerationError("no token of the vocabulary can go on as the constraint asks")
        self.last = self.vocabulary.pieces.added(token, self.last)[-1:] or self.last

    @property
    def finished(self) -> bool:
        # A text may be whole and allowed to go on, but in ways that no token can.
        if self.matcher.is_stopped():
            return True
        return self.matcher.is_accepting() and not self._bits().any()


def grammar_of(
    tokenizer: Tokenizer, regex: str | None, json_schema: str | Mapping[str, Any] | None
) -> str:
    """The library's grammar of one of the two."""
    library = load_library()
    if regex is not None and json_schema is not None:
        raise GenerationError("give a regular expression or a JSON schema, not both")
    if json_schema is not None and joins_words(tokenizer):
        raise GenerationError(
            "a WordPiece vocabulary cannot write JSON, for it puts spaces inside quotation marks"
        )
    if json_schema is None:
        rule = json.loads(library.LLMatcher.grammar_from_regex(regex))["grammars"][0][
            "lark_grammar"
        ]
    else:
        try:
            schema = json.loads(json_schema) if isinstance(json_schema, str) else dict(json_schema)
        except ValueError as error:
            raise GenerationError(f"the JSON schema cannot be read: {error}") from None
        rule = f"start: %json {json.dumps(schema)}"
    # Else the library has forced text spelled as its tokenizer would, if it were alone.
    return library.LLMatcher.grammar_from_lark(f'%llguidance {{"no_forcing": true}}\n{rule}')


def load_library() -> Any:
    try:
        import llguidance  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise GenerationError(
            'text that must match needs the package llguidance: pip install "jaxlm[constrain]"'
        ) from None
    return llguidance


class Vocabulary(NamedTuple):
    """What the library knows of a tokenizer: each piece once, an end, and what is never chosen."""

    pieces: Pieces
    table: Any
    places: Int[np.ndarray, "2 P"]  # in the table: of each token plain, and of each joined


@lru_cache(maxsize=2)
def vocabulary_of(tokenizer: Tokenizer, vocab_size: int) -> Vocabulary:
    library = load_library()
    pieces = pieces_of(tokenizer, vocab_size)
    unique = {piece: i for i, piece in enumerate({*pieces.plain, *pieces.joined} - {b""})}
    end = len(unique)  # a token's place only where the tokenizer has one that ends a text
    rows = [[unique.get(p, end + 1) for p in form] for form in (pieces.plain, pieces.joined)]
    places = np.array(rows)
    if tokenizer.eos_id is not None:
        places[:, tokenizer.eos_id] = end

    class Table:
        eos_token_id = end
        bos_token_id = None
        tokens = (*unique, b"<end>", b"<never>")
        special_token_ids = (end, end + 1)

        def __call__(self, text: str) -> list[int]:
            """Only of use to be asked for the tokens of a text, which masks do not need."""
            return []

    return Vocabulary(pieces, library.LLTokenizer(library.TokenizerWrapper(Table())), places)
