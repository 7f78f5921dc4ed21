"""The flat token store: every document of a split, one after another, memory-mapped from disk."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt

from jaxlm.tokenizer import Tokenizer

# To be raised whenever the same settings come to give other tokens.
STORE_FORMAT = 3
# Encodings take about a hundred bytes a token on their way, so they are made in batches.
BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True, eq=False)
class TokenStore:
    """The tokens of a split, where its documents start, and how many bytes of UTF-8 they were.

    `fingerprint` is a hash of the tokens and the starts.
    """

    tokens: UInt[np.ndarray, " N"]
    document_starts: Int[np.ndarray, " num_documents"]
    num_bytes: int
    fingerprint: str

    def __len__(self) -> int:
        return len(self.tokens)


def write_store(
    folder: Path, documents: Iterable[str], tokenizer: Tokenizer, end: int | None = None
) -> None:
    """Encode documents into a new folder, each followed by the token `end` unless it is None.

    Writes tokens.bin (uint16 up to 65,536 tokens in the vocabulary, else uint32), documents.npy
    (int64 starts) and meta.json.
    """
    folder.mkdir(parents=True)
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    starts, count, num_bytes, digest = [], 0, 0, hashlib.sha256()
    with (folder / "tokens.bin").open("wb") as file:
        for pieces in batch_pieces(documents, tokenizer):
            encoded = tokenizer.encode_batch([text for text, _, _ in pieces])
            for ids, (text, first, last) in zip(encoded, pieces, strict=True):
                if first:
                    starts.append(count)
                if last and end is not None:
                    ids.append(end)
                count += len(ids)
                num_bytes += len(text.encode())
            tokens = np.fromiter(itertools.chain.from_iterable(encoded), dtype)
            digest.update(tokens.data)
            tokens.tofile(file)
    document_starts = np.array(starts, np.int64)
    digest.update(document_starts.data)
    np.save(folder / "documents.npy", document_starts)
    meta = {
        "store_format": STORE_FORMAT,
        "vocab_size": tokenizer.vocab_size,
        "dtype": dtype.name,
        "num_tokens": count,
        "num_bytes": num_bytes,
        "fingerprint": digest.hexdigest()[:16],
        "tokenizer_fingerprint": tokenizer.fingerprint,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def batch_pieces(
    documents: Iterable[str], tokenizer: Tokenizer
) -> Iterator[list[tuple[str, bool, bool]]]:
    """Documents in pieces, each with whether it is the first and the last of its document."""
    batch, size = [], 0
    for document in documents:
        pieces = list(tokenizer.pieces(document))
        for i, piece in enumerate(pieces):
            batch.append((piece, i == 0, i == len(pieces) - 1))
            size += len(piece)
            if size >= BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
    yield batch


def open_store(folder: Path) -> TokenStore | None:
    """The store in a folder, its tokens memory-mapped; None if it is missing or damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        tokens, dtype = folder / "tokens.bin", np.dtype(meta["dtype"])
        starts = np.load(folder / "documents.npy")
        size = meta["num_tokens"] * dtype.itemsize
        if meta["store_format"] != STORE_FORMAT or tokens.stat().st_size != size:
            return None
        # No file of length zero can be mapped.
        mapped = np.memmap(tokens, dtype, "r") if meta["num_tokens"] else np.zeros(0, dtype)
        return TokenStore(mapped.view(np.ndarray), starts, meta["num_bytes"], meta["fingerprint"])
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
