"""Text to token ids and back, and the training of vocabularies."""

from jaxlm.tokenizer.encoding import AbsentTokenizer, Tokenizer
from jaxlm.tokenizer.files import END_OF_TEXT, TokenizerError
from jaxlm.tokenizer.training import BERT_SPECIALS, KINDS, train_tokenizer

__all__ = [
    "BERT_SPECIALS",
    "END_OF_TEXT",
    "KINDS",
    "AbsentTokenizer",
    "Tokenizer",
    "TokenizerError",
    "train_tokenizer",
]
