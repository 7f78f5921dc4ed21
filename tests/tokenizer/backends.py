"""Tokenizers of each family, small enough to read, made by hand as theirs are."""

from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

BPE_MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "Ġ hello"]
USER = AddedToken("<|user|>", normalized=False, special=True)
END = "<|endoftext|>"
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] he ##llo hello world Hello cafe café 今 天 a user < > | #"
PIECES = ["▁", *"abcdefghijklmnopqrstuvwxyzHW", "he", "ll", "hell", "hello", "▁hello", "▁w", "or"]
PIECES += ["▁wor", "ld", "▁world"]
PIECE_MERGES = ["h e", "l l", "he ll", "hell o", "▁ hello", "▁ w", "o r", "▁w or", "l d", "▁wor ld"]


def bpe(first: list[str] | None = None) -> tuple[dict[str, int], list[tuple[str, str]]]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [tuple(pair.split()) for pair in BPE_MERGES]
    tokens = [*(first or []), *alphabet, *("".join(pair) for pair in merges)]
    return {text: i for i, text in enumerate(tokens)}, merges


def byte_level(first: list[str] | None = None, prefix: bool = False) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(*bpe(first)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    backend.add_special_tokens(list(first or []))
    return backend


def roberta() -> tokenizers.Tokenizer:
    backend = byte_level(ROBERTA)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return backend


def bert(lowercase: bool = True) -> tokenizers.Tokenizer:
    vocab = {word: i for i, word in enumerate(WORDS.split())}
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.add_special_tokens(WORDS.split()[:5])
    return backend


def qwen() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(*bpe()))
    backend.normalizer = normalizers.NFC()
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    backend.add_tokens([AddedToken(END, normalized=False, special=True), USER])
    return backend


def llama() -> tokenizers.Tokenizer:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    vocab = {text: i for i, text in enumerate(tokens)}
    merges: list[Any] = [tuple(pair.split()) for pair in PIECE_MERGES]
    backend = tokenizers.Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    backend.post_processor = processors.TemplateProcessing(
        "<s> $A", "<s> $A <s>:1 $B:1", [("<s>", 1)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


def xlm_roberta() -> tokenizers.Tokenizer:
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *PIECES, "<mask>"]
    backend = tokenizers.Tokenizer(models.Unigram([(t, -(len(t) ** -1.0)) for t in tokens], 3))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Strip(left=False), normalizers.Replace(Regex(" {2,}"), "▁")]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)]
    )
    backend.add_special_tokens([*ROBERTA[:4], AddedToken("<mask>", lstrip=True)])
    return backend
