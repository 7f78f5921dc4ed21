"""Text to token ids and back, and the training of vocabularies."""

from jaxlm.tokenizer.classes import END_OF_TEXT
from jaxlm.tokenizer.encoding import AbsentTokenizer, Tokenizer
from jaxlm.tokenizer.formats import TokenizerError
from jaxlm.tokenizer.training import KINDS, SPECIAL_TOKENS, train_tokenizer

__all__ = [
    "END_OF_TEXT",
    "KINDS",
    "SPECIAL_TOKENS",
    "AbsentTokenizer",
    "Tokenizer",
    "TokenizerError",
    "train_tokenizer",
]
