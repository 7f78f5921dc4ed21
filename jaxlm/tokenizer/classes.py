"""What each class of tokenizers does beyond its vocabulary, as in transformers 5."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

END_OF_TEXT = "<|endoftext|>"
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Usual spellings of each special token, for vocabularies without a tokenizer_config.json.
ROLES = {
    "eos_token": (END_OF_TEXT, "</s>", "<eos>"),
    "pad_token": ("<pad>", "[PAD]", "<|pad|>"),
    "bos_token": ("<s>", "<bos>"),
    "unk_token": ("<unk>", "[UNK]"),
    "cls_token": ("[CLS]",),
    "sep_token": ("[SEP]",),
    "mask_token": ("[MASK]", "<mask>"),
}
Fields = Mapping[str, Any]  # those of tokenizer_config.json


class TokenizerRules(NamedTuple):
    """How a class splits text, what it puts around one, and its special tokens by role."""

    split: Callable[[Backend, Fields], None]
    surround: Callable[[Backend, Fields], None] | None
    tokens: dict[str, str]


def split_as_gpt2(backend: Backend, config: Fields) -> None:
    """Words by GPT-2's regular expression, each written in bytes."""
    prefix = bool(config.get("add_prefix_space"))
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()


def split_as_qwen(backend: Backend, config: Fields) -> None:
    """Words in bytes by another expression, with each digit apart, of text in NFC."""
    prefix = bool(config.get("add_prefix_space"))
    backend.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, in_bytes])
    backend.decoder = decoders.ByteLevel()


def split_as_llama(backend: Backend, config: Fields) -> None:
    """No words: a space is a mark, which also opens a text, and the unknown is bytes."""
    prefix = config.get("add_prefix_space") is not False
    scheme = ("always" if config.get("legacy") else "first") if prefix else "never"
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * prefix)


def split_as_bert(backend: Backend, config: Fields) -> None:
    """Words and punctuation, of text in lower case and without accents unless told otherwise."""
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")


def split_as_told(backend: Backend, config: Fields) -> None:
    """As tokenizer.json says."""


def surround_as_bert(backend: Backend, config: Fields) -> None:
    """[CLS] before a text and [SEP] after each."""
    backend.post_processor = processors.BertProcessing(
        *(named_token(backend, config, role) for role in ("sep_token", "cls_token"))
    )


def surround_as_roberta(backend: Backend, config: Fields) -> None:
    """<s> before a text, </s> after it, and </s></s> between two."""
    backend.post_processor = processors.RobertaProcessing(
        *(named_token(backend, config, role) for role in ("sep_token", "cls_token")),
        trim_offsets=config.get("trim_offsets", True),
        add_prefix_space=bool(config.get("add_prefix_space")),
    )


def surround_as_marian(backend: Backend, config: Fields) -> None:
    """</s> after a text."""
    text, number = named_token(backend, config, "eos_token")
    backend.post_processor = processors.TemplateProcessing(
        ["$A", text], ["$A:0", "$B:1", f"{text}:1"], [(text, number)]
    )


def surround_as_asked(backend: Backend, config: Fields) -> None:
    """The tokens that `add_bos_token` and `add_eos_token` ask for."""
    asked = [role for role in ("bos_token", "eos_token") if config.get(f"add_{role}")]
    found = {role: named_token(backend, config, role) for role in asked if config.get(role)}
    if found:
        first, last = (found[r][0] if r in found else "" for r in ("bos_token", "eos_token"))
        backend.post_processor = processors.TemplateProcessing(
            [piece for piece in (first, "$A", last) if piece],
            [f"{piece}:{i}" for i in (0, 1) for piece in (first, f"${'AB'[i]}", last) if piece],
            list(found.values()),
        )


def named_token(backend: Backend, config: Fields, role: str) -> tuple[str, int]:
    """The text and the id of a special token by its role, such as eos_token."""
    text = token_text(config.get(role) or "")
    number = backend.token_to_id(text)
    if number is None:
        raise ValueError(f"its config names no {role} that its vocabulary has")
    return text, number


def token_text(value: Any) -> str:
    """The text of a special token, which may be a mapping with its whitespace rules."""
    return value["content"] if isinstance(value, Mapping) else value


def in_bytes(backend: Backend) -> bool:
    """Whether the tokens are written in bytes, as GPT-2's are."""
    first: Any = backend.pre_tokenizer
    steps: Any = first if isinstance(first, pre_tokenizers.Sequence) else [first]
    return any(isinstance(step, pre_tokenizers.ByteLevel) for step in steps)


def byte_alphabet() -> dict[str, int]:
    """The byte that each character stands for in byte-level vocabularies (Radford et al. 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def roles(bos: str, eos: str, unk: str, **others: str) -> dict[str, str]:
    named = {"bos": bos, "eos": eos, "unk": unk} | others
    return {f"{name}_token": text for name, text in named.items()}


AROUND = roles("<s>", "</s>", "<unk>", sep="</s>", pad="<pad>", cls="<s>", mask="<mask>")
BERT_TOKENS = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
GPT2 = TokenizerRules(split_as_gpt2, None, roles(END_OF_TEXT, END_OF_TEXT, END_OF_TEXT))
QWEN = TokenizerRules(
    split_as_qwen,
    None,
    {f"{name}_token": END_OF_TEXT for name in ("eos", "unk", "pad")},
)
LLAMA = TokenizerRules(split_as_llama, None, roles("<s>", "</s>", "<unk>"))
ROBERTA = TokenizerRules(split_as_gpt2, surround_as_roberta, AROUND)
BERT = TokenizerRules(
    split_as_bert,
    surround_as_bert,
    {f"{name}_token": text for name, text in BERT_TOKENS.items()},
)
MARIAN = TokenizerRules(
    split_as_told,
    surround_as_marian,
    {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
)
PLAIN = TokenizerRules(split_as_told, None, {})
AROUND_AS_TOLD = TokenizerRules(split_as_told, None, AROUND)
RULES = {
    "GPT2Tokenizer": GPT2,
    "RobertaTokenizer": ROBERTA,
    "BartTokenizer": ROBERTA,
    "Qwen2Tokenizer": QWEN,
    "Qwen3Tokenizer": QWEN,
    "LlamaTokenizer": LLAMA,
    "MarianTokenizer": MARIAN,
    "BertTokenizer": BERT,
    "DistilBertTokenizer": BERT,
    "ElectraTokenizer": BERT,
    "XLMRobertaTokenizer": AROUND_AS_TOLD,
    "CamembertTokenizer": AROUND_AS_TOLD,
    "MistralTokenizer": PLAIN,
}
# Models whose published folders often name a wrong class: the model's type decides.
BY_MODEL = ("Qwen2Tokenizer", "MistralTokenizer")
