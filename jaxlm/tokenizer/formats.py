"""Folders of tokenizers: tokenizer.json or older vocabulary files, and what others add to them."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, models
from tokenizers import Tokenizer as Backend

from jaxlm.config import JaxlmError
from jaxlm.tokenizer.classes import (
    BERT,
    BY_MODEL,
    GPT2,
    LLAMA,
    MARIAN,
    PLAIN,
    QWEN,
    ROBERTA,
    RULES,
    Fields,
    TokenizerRules,
    in_bytes,
    surround_as_asked,
    surround_as_marian,
    token_text,
)
from jaxlm.tokenizer.pieces import read_unigram

# Files that stand for their whole folder.
SOURCE_PIECES, TARGET_PIECES = "source.spm", "target.spm"
PIECES = ("tokenizer.model", "sentencepiece.bpe.model", "spiece.model")
FOLDER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", *PIECES)
PLAIN_CLASS = "PreTrainedTokenizerFast"  # whose rules are all in tokenizer.json
# Roles of special tokens, in the order in which missing ones are added.
NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
RESAVE = "load it with transformers' AutoTokenizer and save it again to get its tokenizer.json"


class TokenizerError(JaxlmError):
    """A tokenizer that cannot be found, read or trained, or a text that it cannot encode."""


def require_texts(texts: Any) -> None:
    """Raise TokenizerError for what is no list of texts."""
    listed = isinstance(texts, Iterable) and not isinstance(texts, str | Mapping)
    for text in texts if listed else [texts]:
        if not listed or not isinstance(text, str):
            raise TokenizerError(f"a tokenizer takes one text or a list of texts, got {text!r:.60}")


def read_tokenizer_files(
    file: Path, max_size: int | None = None
) -> tuple[Backend, dict[str, Any], tuple[Backend, dict[str, Any]] | None]:
    """A tokenizer's file, or the older files of its folder, the fields of its config, and both of
    the sources' own, where a folder has one.

    Ids are those of transformers' AutoTokenizer. Tokens that no vocabulary holds are added while it
    has fewer than `max_size`.

    Raises: FileNotFoundError, TokenizerError.
    """
    # For a file of another name, the files beside it may belong to another tokenizer.
    if file.name not in FOLDER_FILES:
        if not file.is_file():
            raise FileNotFoundError(file)
        return Backend.from_file(str(file)), {}, None
    config = read_tokenizer_config(file.parent)
    kind = tokenizer_class(file.parent, config)
    whole = file.name == "tokenizer.json" and file.is_file()
    if whole:
        backend, rules = Backend.from_file(str(file)), RULES.get(kind, PLAIN)
        # Llama 3's is written in bytes under the name of Llama 2's.
        rules = PLAIN if rules is LLAMA and in_bytes(backend) else rules
    else:
        backend, rules = read_older(file, kind, config)
    if not backend.get_vocab_size():
        raise TokenizerError(f"the vocabulary in {file.parent} is empty")
    rules.split(backend, config)
    config = rules.tokens | config
    # What is saved of Marian's is one tokenizer.json, not the files that its class reads.
    if RULES.get(named_class(config), rules) is not rules or (rules is MARIAN and not whole):
        config["tokenizer_class"] = PLAIN_CLASS  # or what is saved would be read by other rules
    add_tokens(backend, config, max_size)
    if rules.surround is not None:
        rules.surround(backend, config)
    elif not whole:
        surround_as_asked(backend, config)
    return backend, config, read_source_files(file.parent)


def tokenizer_class(folder: Path, config: Fields) -> str:
    """The class that a file of the folder names, else the one named like the model's type."""
    model = read_mapping(folder / "config.json")
    own = re.sub(r"[-_]", "", str(model.get("model_type", ""))).lower() + "tokenizer"
    own = next((name for name in RULES if name.lower() == own), "")
    named = named_class(config) or named_class(model)
    return own if own in BY_MODEL or not named else named


def named_class(config: Fields) -> str:
    return str(config.get("tokenizer_class") or "").removesuffix("Fast")


def read_older(file: Path, kind: str, config: Fields) -> tuple[Backend, TokenizerRules]:
    """A tokenizer without tokenizer.json: byte-level BPE, a list of words, or SentencePiece's."""
    names = ("vocab.json", "merges.txt", "vocab.txt")
    vocab, merges, words = (file.parent / name for name in names)
    if vocab.is_file() and merges.is_file():
        rules = RULES.get(kind or "GPT2Tokenizer", PLAIN)
        if rules not in (GPT2, ROBERTA, QWEN):
            raise TokenizerError(
                f"{file.parent} holds a {kind}, whose rules vocab.json and merges.txt do not "
                f"tell: {RESAVE}"
            )
        return Backend(models.BPE.from_file(str(vocab), str(merges))), rules
    if (file.parent / TARGET_PIECES).is_file():
        return read_side(file.parent, TARGET_PIECES), MARIAN
    if words.is_file():
        unknown = token_text(config.get("unk_token") or "[UNK]")
        return Backend(models.WordPiece.from_file(str(words), unk_token=unknown)), BERT
    for pieces in filter(Path.is_file, (file.parent / name for name in PIECES)):
        if RULES.get(kind) is not LLAMA or pieces.name != PIECES[0]:
            raise TokenizerError(
                f"{pieces} alone does not tell the rules of a {kind or 'tokenizer'}: {RESAVE}"
            )
        return read_pieces(pieces), LLAMA
    raise FileNotFoundError(file)


def read_source_files(folder: Path) -> tuple[Backend, dict[str, Any]] | None:
    """The tokenizer of sources alone, where a folder has one beside that of the targets."""
    saved = folder / "source_tokenizer.json"
    if saved.is_file():
        return Backend.from_file(str(saved)), read_mapping(folder / "source_tokenizer_config.json")
    if (folder / "tokenizer.json").is_file() or not (folder / SOURCE_PIECES).is_file():
        return None
    backend, config = read_side(folder, SOURCE_PIECES), read_tokenizer_config(folder)
    config = MARIAN.tokens | config | {"tokenizer_class": PLAIN_CLASS}
    surround_as_marian(backend, config)
    return backend, config


def read_side(folder: Path, pieces: str) -> Backend:
    """The tokenizer of one side of Marian's, whose vocab.json has the ids of both or of sources."""
    own = folder / "target_vocab.json"
    vocab = own if pieces == TARGET_PIECES and own.is_file() else folder / "vocab.json"
    return read_unigram(folder / pieces, read_mapping(vocab))


def read_pieces(file: Path) -> Backend:
    """Llama's byte-pair pieces in the format of SentencePiece, of which earlier ones merge first.

    Raises: TokenizerError where the sentencepiece extra is missing, or the pieces are of another
    kind.
    """
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        install = 'pip install "jaxlm[sentencepiece]"'
        raise TokenizerError(f"{file} takes the sentencepiece extra: {install}") from None
    model: Any = SentencePieceProcessor(model_file=str(file))
    ids = range(model.vocab_size())
    if not any(model.is_byte(i) for i in ids):
        raise TokenizerError(f"{file} has no pieces for bytes, as Llama's has: {RESAVE}")
    vocab = {model.id_to_piece(i): i for i in ids}
    halves = [
        (i, cut, len(text) - cut, (text[:cut], text[cut:]))
        for text, i in vocab.items()
        for cut in range(1, len(text))
        if text[:cut] in vocab and text[cut:] in vocab
    ]
    merges: list[Any] = [pair for *_, pair in sorted(halves)]
    backend = Backend(models.BPE(vocab, merges, fuse_unk=True, byte_fallback=True))
    controls = [model.id_to_piece(i) for i in ids if model.is_control(i)]
    backend.add_tokens([AddedToken(text, normalized=False, special=True) for text in controls])
    return backend


def add_tokens(backend: Backend, config: Fields, max_size: int | None) -> None:
    """Add the tokens that the config lists by id, those with a role, and the additional ones.

    Raises: TokenizerError where the id of one would be another.
    """
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    listed = sorted(
        (int(i), as_token(t)) for i, t in config.get("added_tokens_decoder", {}).items()
    )
    tokens = {token.content: token for _, token in listed}
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    others = [name for name in config if name.endswith("_token") and name not in NAMED]
    special = [config.get(name) for name in (*NAMED, *others)]
    special += extra.values() if isinstance(extra, Mapping) else extra
    for value in special:
        if isinstance(value, str | Mapping) and token_text(value) not in known:
            tokens.setdefault(token_text(value), as_token(value, special=True))
    for text, token in tokens.items():
        is_new = backend.token_to_id(text) is None
        if not is_new or max_size is None or backend.get_vocab_size() < max_size:
            backend.add_tokens([token])
    for i, token in listed:
        found = backend.token_to_id(token.content)
        if found not in (None, i) and token.content not in known:
            raise TokenizerError(
                f"the added token {token.content!r} is told to have the id {i}, but would be "
                f"{found} in this vocabulary: its files do not belong together; {RESAVE}"
            )


def as_token(value: str | Mapping[str, Any], **rules: Any) -> AddedToken:
    """A special token, given as its text or as a mapping with its rules."""
    fields = {"content": value} if isinstance(value, str) else dict(value)
    fields.pop("__type", None)
    return AddedToken(**fields | rules)


def byte_level(model: Any) -> Backend:
    """A model with GPT-2's rules: text is split by its regular expression, words into bytes."""
    backend = Backend(model)
    GPT2.split(backend, {})
    return backend


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """The fields of tokenizer_config.json and its companions: special tokens, chat template.

    A special_tokens_map.json and an added_tokens.json count where there is no
    `added_tokens_decoder`, which is newer.
    """
    config = read_mapping(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        config |= read_mapping(folder / "special_tokens_map.json")
        special = [config.get(name) for name in NAMED]
        special += config.get("additional_special_tokens") or []
        texts = {token_text(value) for value in special if value}
        added = read_mapping(folder / "added_tokens.json")
        if added:
            config["added_tokens_decoder"] = {
                str(i): {"content": text, "normalized": text not in texts, "special": text in texts}
                for text, i in added.items()
            }
    config |= read_mapping(folder / "chat_template.json")
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
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise TokenizerError(f"{path} must hold a JSON mapping")
    return content
