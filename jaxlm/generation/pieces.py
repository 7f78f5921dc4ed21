"""What each token adds to a text, in bytes: for most vocabularies always the same."""

import json
import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from jaxlm.generation.detokenizing import is_wide, joins_words
from jaxlm.tokenizer import Tokenizer
from jaxlm.tokenizer.encoding import UNSPACED


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
        if not last or (self.by_words and is_wide(last)):
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
            wide = by_words and is_wide(text.lstrip(" "))
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


def byte_alphabet() -> dict[str, int]:
    """The byte that each character stands for in byte-level vocabularies (Radford et al. 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
