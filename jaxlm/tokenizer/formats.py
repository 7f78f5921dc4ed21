"""File formats of tokenizers: tokenizer.json, GPT-2's vocab and merges, BERT's word list."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors
from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

from jaxlm.config import JaxlmError

END_OF_TEXT = "<|endoftext|>"
# Tokenizers in vocab.json and merges.txt that split words as GPT-2 does.
GPT2_LIKE = ("GPT2Tokenizer", "RobertaTokenizer", "BartTokenizer")


class TokenizerError(JaxlmError):
    """A tokenizer that cannot be found, read or trained, or a text that it cannot encode."""


def read_backend(file: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The tokenizer in a file, or in the older files of its folder if tokenizer.json is missing.

    `config` holds the fields of tokenizer_config.json.

    Raises: FileNotFoundError, TokenizerError.
    """
    folder = file.parent
    vocab, merges, words = (folder / n for n in ("vocab.json", "merges.txt", "vocab.txt"))
    if file.name == "vocab.txt" or (file.name == "tokenizer.json" and not file.exists()):
        if vocab.is_file() and merges.is_file():
            return read_gpt2(vocab, merges, config)
        if words.is_file():
            return read_bert(words, config)
    if not file.is_file():
        raise FileNotFoundError(file)
    return tokenizers.Tokenizer.from_file(str(file))


def read_gpt2(vocab: Path, merges: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Byte-level BPE; RoBERTa's puts <s> and </s> around a text."""
    kind = str(config.get("tokenizer_class", GPT2_LIKE[0])).removesuffix("Fast")
    if kind not in GPT2_LIKE:
        raise TokenizerError(
            f"{vocab.parent} holds a {kind}, whose rules vocab.json and merges.txt do not tell: "
            "save it with its tokenizer.json"
        )
    backend = byte_level(models.BPE.from_file(str(vocab), str(merges)))
    specials = (END_OF_TEXT, "<s>", "<pad>", "</s>", "<unk>", "<mask>")
    backend.add_special_tokens([t for t in specials if backend.token_to_id(t) is not None])
    if kind != GPT2_LIKE[0]:
        first, last = (backend.token_to_id(token) for token in ("<s>", "</s>"))
        if first is None or last is None:
            raise TokenizerError(f"{vocab} lacks the <s> or </s> of a {kind}")
        backend.post_processor = processors.RobertaProcessing(
            ("</s>", last), ("<s>", first), add_prefix_space=False
        )
    return backend


def read_bert(words: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """WordPiece from a word list, with [CLS] before and [SEP] after a text."""
    return BertWordPieceTokenizer.from_file(
        str(words),
        lowercase=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
    )._tokenizer


def byte_level(model: Any) -> tokenizers.Tokenizer:
    """A model with GPT-2's rules: text is split by its regular expression, words into bytes."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """The fields of tokenizer_config.json and its companions: special tokens, chat template."""
    config = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json", "chat_template.json"):
        config |= read_mapping(folder / name)
    template = folder / "chat_template.jinja"
    if template.is_file():
        config["chat_template"] = template.read_text(encoding="utf-8")
    return config


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; an empty one if there is no file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise TokenizerError(f"{path} must hold a JSON mapping")
    return content
