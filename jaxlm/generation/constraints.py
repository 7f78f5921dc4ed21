"""Text that must match: masks over the vocabulary from a regular expression or a JSON schema."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt32

from jaxlm.generation.detokenizer import joins_words, starts_wide
from jaxlm.generation.options import GenerationError
from jaxlm.tokenizer import Tokenizer
from jaxlm.tokenizer.characters import UNSPACED
from jaxlm.tokenizer.classes import byte_alphabet


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
        self.vocabulary = matcher_vocabulary(tokenizer, vocab_size)
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
    if not isinstance(regex, str | None):
        raise GenerationError(f"regex must be a text, got {regex!r}")
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


@dataclass(frozen=True)
class Pieces:
    """The bytes of each token; none for special tokens, and for ids that are no tokens.

    Some decoders drop a space at the beginning of a text, and WordPiece's text has none beside
    Chinese characters either. There a token adds its `joined` bytes.
    """

    plain: list[bytes]
    joined: list[bytes]
    inner: Bool[np.ndarray, " P"]  # shown with their mark, as ##s, at the beginning of a text
    chinese: Bool[np.ndarray, " P"]  # marks among them, which are written without spaces
    by_words: bool  # whether the decoder puts spaces between tokens

    def joins(self, last: str) -> Bool[np.ndarray, " P"]:
        """Which tokens add `joined` to a text whose last character this is; "" if there is none."""
        if not last or (self.by_words and starts_wide(last)):
            return np.ones_like(self.inner)
        beside = self.by_words and re.match(f"[{UNSPACED}]", last)
        return self.chinese if beside else np.zeros_like(self.inner)

    def possible(self, last: str) -> Bool[np.ndarray, " P"]:
        """Which tokens add to such a text what their bytes are."""
        return np.ones_like(self.inner) if last else ~self.inner

    def added(self, token: int, last: str) -> str:
        """The text that a token adds to such a text."""
        pieces = self.joined if self.joins(last)[token] else self.plain
        return pieces[token].decode(errors="replace")


class MatcherVocabulary(NamedTuple):
    """What the library knows of a tokenizer: each piece once, an end, and what is never chosen."""

    pieces: Pieces
    table: Any
    places: Int[np.ndarray, "2 P"]  # in the table: of each token plain, and of each joined


@lru_cache(maxsize=2)
def matcher_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> MatcherVocabulary:
    library = load_library()
    pieces = pieces_of(tokenizer, vocab_size)
    different = sorted({*pieces.plain, *pieces.joined} - {b""})
    unique = {piece: i for i, piece in enumerate(different)}
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

    return MatcherVocabulary(pieces, library.LLTokenizer(library.TokenizerWrapper(Table())), places)


def pieces_of(tokenizer: Tokenizer, vocab_size: int) -> Pieces:
    """The pieces of a vocabulary, for a model whose head has `vocab_size` tokens."""
    backend, by_words = tokenizer.backend, joins_words(tokenizer)
    texts = [""] * max(vocab_size, tokenizer.vocab_size)
    plain, inner = [b""] * len(texts), np.zeros(len(texts), bool)
    special = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
    rules = json.dumps(json.loads(backend.to_str())["decoder"])
    in_bytes, falls_back = '"ByteLevel"' in rules, '"ByteFallback"' in rules
    alphabet = byte_alphabet()
    for token, i in backend.get_vocab().items():
        if i in special:
            continue
        if in_bytes:
            known = all(character in alphabet for character in token)
            plain[i] = bytes(alphabet[c] for c in token) if known else token.encode()
        elif falls_back and re.fullmatch("<0x[0-9A-F]{2}>", token):
            plain[i] = bytes([int(token[3:5], 16)])
        else:
            text = decoded(tokenizer, ["a", token])[1:]
            wide = by_words and starts_wide(text.lstrip(" "))
            texts[i] = text.lstrip(" ") if wide else text
            plain[i] = texts[i].encode()
            inner[i] = by_words and token.startswith("##")
    strips = not in_bytes and not decoded(tokenizer, ["\u2581a"]).startswith((" ", "\u2581"))
    joined = [piece.removeprefix(b" ") for piece in plain] if by_words or strips else plain
    chinese = np.array([bool(re.match(f" ?[{UNSPACED}]", text)) for text in texts])
    return Pieces(plain, joined, inner, chinese, by_words)


def decoded(tokenizer: Tokenizer, tokens: list[str]) -> str:
    """Tokens as the vocabulary's decoder joins them; without one there are spaces between."""
    decoder = tokenizer.backend.decoder
    return " ".join(tokens) if decoder is None else decoder.decode(tokens)
