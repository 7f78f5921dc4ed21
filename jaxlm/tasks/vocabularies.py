"""Vocabularies that tasks learn from their texts, and the special tokens that pairs take."""

from collections.abc import Sequence

from jaxlm.config import DataConfig, ModelConfig
from jaxlm.data.dataset import load_tokenizer
from jaxlm.data.sources import DataError
from jaxlm.tokenizer import KINDS, SPECIAL_TOKENS, Tokenizer, train_tokenizer

# By data.special_tokens: what a trained vocabulary begins with.
SPECIALS: dict[str, tuple[str, ...]] = {
    "none": (),
    "cls_sep": SPECIAL_TOKENS,
    "bos_eos": ("<pad>", "</s>", "<s>", "<unk>"),
}


def learn_tokenizer(name: str, data: DataConfig, texts: Sequence[str], usual: str) -> Tokenizer:
    """A tokenizer by name or file, learned from texts if it is a kind.

    `usual` are the special tokens where `data.special_tokens` is null.
    """
    if name not in KINDS:
        return load_tokenizer(name)
    return train_tokenizer(name, texts, data.vocab_size, SPECIALS[data.special_tokens or usual])


def end_of(tokenizer: Tokenizer) -> int:
    """The token that ends a source and a target; DataError where there is none."""
    if tokenizer.eos_id is None:
        raise DataError(
            "an encoder-decoder needs a tokenizer with an end of text, such as </s>: "
            "--data.special_tokens bos_eos trains one"
        )
    return tokenizer.eos_id


def start_of(tokenizer: Tokenizer, model: ModelConfig | None) -> int:
    """The token that a target follows: the model's, else the tokenizer's bos, pad or end."""
    known = None if model is None else model.decoder_start_id
    found = (token for token in (known, tokenizer.bos_id, tokenizer.pad_id) if token is not None)
    return next(found, end_of(tokenizer))


def cut_sources(tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> tuple[list[str], int]:
    """Texts of which each has at most `limit` tokens as a source, and how many were cut for it."""
    own, found, cut = tokenizer.source or tokenizer, list(texts), 0
    for i, ids in enumerate(tokenizer.encode_sources(texts)):
        kept, row = limit, ids
        # The pieces of a text may have more tokens than they had in the whole.
        while len(row) > limit and kept > 0:
            kept -= 1
            found[i] = own.decode(ids[:kept], skip_special_tokens=False)
            (row,) = tokenizer.encode_sources([found[i]])
        cut += kept < limit
    return found, cut
