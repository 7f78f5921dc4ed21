"""Text that must match: masks over the vocabulary from a regular expression or a JSON schema."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt32

from jaxlm.generation.detokenizing import joins_words
from jaxlm.generation.pieces import Pieces, pieces_of
from jaxlm.generation.settings import GenerationError
from jaxlm.tokenizer import Tokenizer


class Grammar(NamedTuple):
    """What a text must match, as the library reads it, and what errors call it."""

    rules: str
    name: str
    is_json: bool


class Constraint:
    """What one row's text must match, and how far it has come.

    `allowed` is a mask for the next token, a bit a token; `check` and `accept` take the one that
    was chosen. `finished` tells that the text is whole and nothing may follow. Raises
    GenerationError where the vocabulary cannot write what must come next.
    """

    def __init__(
        self, tokenizer: Tokenizer, vocab_size: int, grammar: Grammar, prompt: Sequence[int]
    ):
        if grammar.is_json and joins_words(tokenizer):
            raise GenerationError(
                "a WordPiece vocabulary cannot write JSON, for it puts spaces inside quotes"
            )
        self.name, self.vocab_size, self.eos_id = grammar.name, vocab_size, tokenizer.eos_id
        self.vocabulary = vocabulary_of(tokenizer, vocab_size)
        library = load_library()
        self.matcher = library.LLMatcher(self.vocabulary.table, grammar.rules, log_level=0)
        self._arrive(tokenizer.decode(prompt)[-1:])

    def _arrive(self, last: str) -> None:
        """Find out what may come after a text whose last character this is."""
        pieces, (plain, joined) = self.vocabulary.pieces, self.vocabulary.places
        self.last = last
        # Where in the library's table each token stands, coming next.
        self.places = np.where(pieces.joins(last), joined, plain)
        words = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
        bits = np.unpackbits(words, bitorder="little").astype(bool)[self.places]
        self.bits = (bits & pieces.possible(last))[: self.vocab_size]
        more = self.bits.sum()
        if self.eos_id is not None and self.eos_id < self.vocab_size:
            more -= self.bits[self.eos_id]
        # A text may be whole and allowed to go on, but in ways that no token can.
        self.finished = more == 0
        # Where it is stuck the library allows the end, too.
        if self.finished and not self.matcher.is_accepting():
            raise GenerationError(f"no token of the vocabulary can go on as {self.name} asks")

    def allowed(self) -> UInt32[np.ndarray, " W"]:
        bits = np.zeros(-(-self.vocab_size // 32) * 32, bool)
        bits[: self.vocab_size] = self.bits
        return np.packbits(bits, bitorder="little").view(np.uint32)

    def check(self, token: int) -> None:
        """Raise GenerationError where other rules left no token that is allowed."""
        if not self.bits[token]:
            raise GenerationError(
                f"bans and the n-gram rule leave no token with which {self.name} can go on"
            )

    def accept(self, token: int) -> None:
        """Go on behind a token that is allowed and does not end the text."""
        self.matcher.consume_token(int(self.places[token]))
        self._arrive(self.vocabulary.pieces.added(token, self.last)[-1:] or self.last)


def grammar_of(regex: str | None, json_schema: str | Mapping[str, Any] | None) -> Grammar | None:
    """The grammar of one of the two; GenerationError if it cannot be read, or for both."""
    if regex is None and json_schema is None:
        return None
    library = load_library()
    if regex is not None and json_schema is not None:
        raise GenerationError("give a regular expression or a JSON schema, not both")
    if regex is not None:
        name = f"the regular expression {regex!r}"
        grammar = json.loads(library.LLMatcher.grammar_from_regex(regex))["grammars"][0]
        rule = grammar["lark_grammar"]
    else:
        name = "the JSON schema"
        try:
            schema = (
                json.loads(json_schema) if isinstance(json_schema, str) else dict(json_schema or {})
            )
            rule = f"start: %json {json.dumps(schema)}"
        except RecursionError:
            raise GenerationError("the JSON schema is nested too deeply") from None
        except (TypeError, ValueError) as error:
            raise GenerationError(f"the JSON schema cannot be read: {error}") from None
    # Else the library has forced text spelled as its tokenizer would, if it were alone.
    rules = library.LLMatcher.grammar_from_lark(f'%llguidance {{"no_forcing": true}}\n{rule}')
    complaint = library.LLMatcher.validate_grammar(rules)
    if complaint:
        raise GenerationError(f"{name} cannot be read: {reason(complaint)}")
    return Grammar(rules, name, regex is None)


def reason(complaint: str) -> str:
    """What is wrong, out of the library's drawing of where."""
    lines = complaint.strip().splitlines()
    found = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return found[0] if found else re.sub(r"^at \d+\(\d+\): ", "", lines[0])


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
