"""Vocabularies of SentencePiece with a mapping of their own from pieces to ids, as Marian's."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from struct import unpack
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

NORMAL, USER_DEFINED = 1, 4  # types of pieces that stand for text
END, UNKNOWN, PADDING = "</s>", "<unk>", "<pad>"
BELOW = 10.0  # what SentencePiece takes from the lowest score for a character that it lacks


def read_unigram(file: Path, vocab: Mapping[str, int]) -> Backend:
    """The tokenizer of a .spm file whose pieces have these ids (Kudo 2018).

    Ids of pieces that the file lacks, such as the other side's, can be decoded; in a text they come
    only where the file has nothing for a character.

    Raises: ValueError where the file is damaged or the vocabulary has no <unk>.
    """
    scores, spec = {}, {}
    for number, value in fields(file.read_bytes()):
        if number == 1:
            piece = dict(fields(value))
            if piece.get(3, NORMAL) in (NORMAL, USER_DEFINED):
                scores[piece[1].decode()] = unpack("<f", piece.get(2, bytes(4)))[0]
        elif number == 3:
            spec = dict(fields(value))
    if not scores or UNKNOWN not in vocab:
        raise ValueError(f"{file} holds no pieces, or its vocabulary no {UNKNOWN}")
    absent = min(scores.values()) - BELOW
    pieces = {i: piece for piece, i in vocab.items()}
    listed = [pieces.get(i, f"<unused {i}>") for i in range(max(pieces) + 1)]
    entries = [(piece, scores.get(piece, absent)) for piece in listed]
    backend = Backend(models.Unigram(entries, vocab[UNKNOWN], False))
    steps: list[Any] = [normalizers.Precompiled(spec[2])] if spec.get(2) else []
    if spec.get(4, 1):  # extra spaces are removed
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    backend.normalizer = normalizers.Sequence(steps)
    scheme = "always" if spec.get(3, 1) else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme)
    backend.decoder = decoders.Metaspace("▁", scheme)
    codes = [piece for piece in vocab if piece.startswith(">>") and piece.endswith("<<")]
    backend.add_tokens([AddedToken(code, normalized=False) for code in codes])
    special = [piece for piece in (END, UNKNOWN, PADDING) if piece in vocab]
    backend.add_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    return backend


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The numbers and values of a message of protocol buffers: integers, or bytes."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while place < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(kind) or varint()
        yield number, message[place : place + size]
        place += size
