"""Forms in which tokenizers come, each written as a small folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers

from tests.tokenizer.backends import (
    END,
    ROBERTA,
    USER,
    WORDS,
    bert,
    bpe,
    byte_level,
    llama,
    qwen,
    roberta,
    xlm_roberta,
)

TEXTS = [
    "hello world",
    " Hello  WORLD café 今天",
    "hello <mask> world<|user|> hello<pad>a",
    "<s> hello</s>world [MASK]he [CLS] <|endoftext|> hello",
    "",
]
KNOWN = Path(__file__).parents[1] / "fixtures" / "tokenizer_ids.json"
Files = dict[str, Any]  # contents by name: texts, or what JSON writes


def token(text: str, special: bool = True, **rules: bool) -> dict[str, Any]:
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    return {"content": text, **flags, **rules, "special": special}


def bpe_files(first: list[str] | None = None) -> Files:
    vocab, merges = bpe(first)
    lines = "\n".join(["#version: 0.2", *map(" ".join, merges)])
    return {"vocab.json": vocab, "merges.txt": lines + "\n"}


def saved(backend: tokenizers.Tokenizer, added: list[Any] = ()) -> Files:
    backend.add_tokens(list(added))
    return {"tokenizer.json": backend.to_str()}


CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"


def named(kind: str, **fields: Any) -> Files:
    return {CONFIG: {"tokenizer_class": kind, **fields}}


def model(kind: str, **fields: Any) -> Files:
    return {"config.json": {"model_type": kind, **fields}}


def words() -> Files:
    return {"vocab.txt": "\n".join(WORDS.split()) + "\n"}


def decoder(first: int) -> dict[str, Any]:
    return {str(first): token("<|user|>"), str(first + 1): token("<think>", special=False)}


SIZE = len(bpe()[0])
GPT, LLAMA, FAST = "GPT2Tokenizer", "LlamaTokenizer", "PreTrainedTokenizerFast"
MASK = token("<mask>", lstrip=True)
TYPED_MASK = {**MASK, "__type": "AddedToken"}
FORMS: dict[str, Callable[[], Files]] = {
    "gpt: two files": lambda: bpe_files([END]) | model("gpt2"),
    "gpt: without its end": lambda: bpe_files() | model("gpt2"),
    "gpt: prefix space": lambda: bpe_files() | named(GPT, add_prefix_space=True),
    "gpt: added_tokens.json": lambda: (
        bpe_files() | {ADDED: {"<|user|>": SIZE + 1, END: SIZE}} | model("gpt2")
    ),
    "gpt: added and named special": lambda: (
        bpe_files()
        | {ADDED: {END: SIZE, "<|user|>": SIZE + 1}, MAP: {"pad_token": "<|user|>"}}
        | model("gpt2")
    ),
    "gpt: added_tokens_decoder": lambda: (
        bpe_files() | named(GPT, added_tokens_decoder=decoder(SIZE))
    ),
    "gpt: special_tokens_map": lambda: (
        bpe_files([END]) | {MAP: {"pad_token": "<pad>"}} | model("gpt2")
    ),
    "gpt: map over null": lambda: (
        bpe_files([END]) | {MAP: {"pad_token": token("<pad>")}} | named(GPT, pad_token=None)
    ),
    "gpt: decoder over map": lambda: (
        bpe_files()
        | {MAP: {"pad_token": "<pad>"}}
        | named(GPT, pad_token=None, added_tokens_decoder={str(SIZE): token(END)})
    ),
    "gpt: additional tokens": lambda: (
        bpe_files([END]) | named(GPT, additional_special_tokens=["<|user|>", "<pad>"])
    ),
    "gpt: bos asked": lambda: bpe_files([END]) | named(GPT, add_bos_token=True),
    "gpt: whole file": lambda: saved(byte_level([END])) | model("gpt2"),
    "gpt: whole file, prefix space": lambda: (
        saved(byte_level([END])) | named("GPT2TokenizerFast", add_prefix_space=True)
    ),
    "gpt: whole file, prefix space denied": lambda: (
        saved(byte_level([END], prefix=True)) | named(GPT, add_prefix_space=False)
    ),
    "gpt: whole file, bos asked": lambda: saved(byte_level([END])) | named(GPT, add_bos_token=True),
    "fast: prefix space": lambda: saved(byte_level([END])) | named(FAST, add_prefix_space=True),
    "fast: lacks tokens": lambda: (
        saved(byte_level([END])) | named(FAST, added_tokens_decoder=decoder(SIZE + 1))
    ),
    "fast: lacks its pad": lambda: (
        saved(byte_level([END])) | named(FAST, pad_token="<pad>", eos_token=END)
    ),
    "fast: lacks added_tokens.json": lambda: (
        saved(byte_level([END])) | {ADDED: {"<|user|>": SIZE + 1}} | named(FAST)
    ),
    "fast: case": lambda: saved(bert(lowercase=True)) | named(FAST, do_lower_case=False),
    "fast: named by nothing": lambda: saved(bert()),
    "roberta: two files": lambda: bpe_files(ROBERTA) | model("roberta"),
    "roberta: named": lambda: bpe_files(ROBERTA) | named("RobertaTokenizer"),
    "roberta: mask in config": lambda: (
        bpe_files(ROBERTA) | named("RobertaTokenizer", mask_token=TYPED_MASK)
    ),
    "roberta: mask in map": lambda: (
        bpe_files(ROBERTA) | {MAP: {"mask_token": MASK}} | model("roberta")
    ),
    "roberta: mask in decoder": lambda: (
        bpe_files(ROBERTA) | named("RobertaTokenizer", added_tokens_decoder={"4": MASK})
    ),
    "roberta: prefix space, no class": lambda: (
        bpe_files(ROBERTA) | {CONFIG: {"add_prefix_space": True}} | model("roberta")
    ),
    "roberta: whole file": lambda: (
        saved(roberta()) | named("RobertaTokenizerFast", mask_token=TYPED_MASK)
    ),
    "roberta: whole file, no class": lambda: saved(roberta()) | model("roberta"),
    "roberta: whole file of no class's rules": lambda: (
        saved(byte_level(ROBERTA)) | named("RobertaTokenizer", add_prefix_space=True)
    ),
    "bert: word list": lambda: words() | model("bert"),
    "bert: cased": lambda: words() | named("BertTokenizer", do_lower_case=False),
    "bert: accents and characters": lambda: (
        words() | named("BertTokenizer", strip_accents=False, tokenize_chinese_chars=False)
    ),
    "bert: cased against the whole file": lambda: (
        saved(bert()) | named("BertTokenizer", do_lower_case=False)
    ),
    "bert: lower against the whole file": lambda: (
        saved(bert(False)) | named("BertTokenizerFast", do_lower_case=True)
    ),
    "bert: case untold": lambda: saved(bert(False)) | named("BertTokenizer"),
    "bert: added_tokens.json": lambda: (
        words() | {ADDED: {"<|user|>": 20, "<Think>": 21}} | named("BertTokenizer")
    ),
    "bert: decoder": lambda: (
        words() | named("BertTokenizer", added_tokens_decoder={"20": token("<|user|>")})
    ),
    "bert: own names": lambda: (
        words() | {MAP: {"cls_token": "a", "sep_token": "user"}} | named("BertTokenizer")
    ),
    "bert: another model's": lambda: words() | model("distilbert"),
    "bert: config names the class": lambda: (
        words() | model("electra", tokenizer_class="BertTokenizer")
    ),
    "qwen: two files": lambda: (
        bpe_files()
        | named("Qwen2Tokenizer", added_tokens_decoder={str(SIZE): token(END)})
        | model("qwen2")
    ),
    "qwen: newer model": lambda: bpe_files() | {ADDED: {END: SIZE}} | model("qwen3"),
    "qwen: whole file": lambda: saved(qwen()) | named("Qwen2Tokenizer") | model("qwen2"),
    "llama: whole file": lambda: saved(llama()) | named("LlamaTokenizerFast") | model("llama"),
    "llama: legacy": lambda: saved(llama()) | named(LLAMA, legacy=True) | model("llama"),
    "llama: not legacy": lambda: saved(llama()) | named(LLAMA, legacy=False) | model("llama"),
    "llama: no prefix": lambda: (
        saved(llama()) | named(LLAMA, add_prefix_space=False) | model("llama")
    ),
    "llama: end asked": lambda: (
        saved(llama()) | named(LLAMA, add_eos_token=True, add_bos_token=False) | model("llama")
    ),
    "llama: lacks its pad": lambda: (
        saved(llama()) | {MAP: {"pad_token": "<pad>"}} | named(LLAMA) | model("llama")
    ),
    "llama: bytes": lambda: (
        saved(byte_level([END]), [USER]) | named("LlamaTokenizerFast") | model("llama")
    ),
    "mistral: whole file": lambda: saved(llama()) | named(LLAMA) | model("mistral"),
    "xlm: whole file": lambda: (
        saved(xlm_roberta())
        | named("XLMRobertaTokenizer", mask_token=TYPED_MASK)
        | model("xlm-roberta")
    ),
    "camembert: whole file": lambda: (
        saved(xlm_roberta()) | named("CamembertTokenizer", mask_token=TYPED_MASK)
    ),
    "camembert: whole file, no class": lambda: saved(xlm_roberta()) | model("camembert"),
}


def write(folder: Path, files: Files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def reference(folder: Path) -> dict[str, Any]:
    """What transformers makes of a folder: the ids of TEXTS, and those of the special tokens."""
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    roles = {role: getattr(theirs, f"{role}_token_id") for role in ROLES}
    return {"ids": [theirs(text)["input_ids"] for text in TEXTS], "roles": roles}


if __name__ == "__main__":  # writes what the tests without transformers compare with
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        forms = enumerate(FORMS.items())
        found = {name: reference(write(Path(root, str(i)), make())) for i, (name, make) in forms}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(ids)}" for name, ids in found.items())
    KNOWN.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
