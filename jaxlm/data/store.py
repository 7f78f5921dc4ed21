"""The flat token store, memory-mapped from disk, and n-gram baselines on its tokens."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from jaxtyping import Int, Integer, UInt

from jaxlm.files import file_hash
from jaxlm.tokenizer import Tokenizer

# Raise it when the same config gives other tokens than before, or the files of a store change.
STORE_FORMAT = 4
# Encoding takes about 100 bytes of memory a token, so documents are encoded in batches.
BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True, eq=False)
class TokenStore:
    """The tokens of a split, where its documents start, and their size in bytes of UTF-8.

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

    Writes tokens.bin (uint16 for a vocabulary of up to 65,536 tokens, else uint32), documents.npy
    (int64 starts) and meta.json, which has hashes of both and of itself.
    """
    folder.mkdir(parents=True)
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    starts, count, num_bytes, largest, digest = [], 0, 0, -1, hashlib.sha256()
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
            largest = max(largest, int(tokens.max(initial=0)))
            file.write(tokens.data)  # its errors give a reason, those of tofile do not
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
        "largest_id": largest,
        "hashes": {name: file_hash(folder / name) for name in ("tokens.bin", "documents.npy")},
    }
    text = json.dumps(meta | {"hash": meta_hash(meta)}, indent=2) + "\n"
    (folder / "meta.json").write_text(text, encoding="utf-8")


def meta_hash(meta: dict[str, Any]) -> str:
    """A hash of the contents of meta.json without its own hash."""
    return xxhash.xxh3_128_hexdigest(json.dumps({**meta, "hash": None}, sort_keys=True).encode())


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


def open_store(folder: Path, tokenizer: Tokenizer | None = None) -> TokenStore | None:
    """The store in a folder, its tokens memory-mapped; None if it is missing or damaged.

    Its files are checked against their hashes once in a process, and again after they change. A
    store of another tokenizer than `tokenizer`, if given, counts as damaged.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta["store_format"] != STORE_FORMAT or meta["hash"] != meta_hash(meta):
            return None
        if any(hash_once(folder / n, state_of(folder / n)) != h for n, h in meta["hashes"].items()):
            return None
        if tokenizer is not None and (
            meta["tokenizer_fingerprint"] != tokenizer.fingerprint
            or meta["largest_id"] >= tokenizer.vocab_size
        ):
            return None
        tokens, dtype = folder / "tokens.bin", np.dtype(meta["dtype"])
        starts = np.load(folder / "documents.npy")
        # An empty file cannot be mapped.
        mapped = np.memmap(tokens, dtype, "r") if meta["num_tokens"] else np.zeros(0, dtype)
        return TokenStore(mapped.view(np.ndarray), starts, meta["num_bytes"], meta["fingerprint"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None


def state_of(file: Path) -> tuple[int, ...]:
    """Properties of a file that change when it is written again."""
    stat = file.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@lru_cache(maxsize=64)
def hash_once(file: Path, state: tuple[int, ...]) -> str:
    """The hash of a file, cached until its state changes."""
    return file_hash(file)


def witten_bell(
    train: Integer[np.ndarray, " N"],
    val: Integer[np.ndarray, " M"],
    vocab_size: int,
    orders: Sequence[int] = (1, 2, 3, 4, 5),
) -> dict[int, float]:
    """Nats per token of `val` under interpolated n-grams counted on `train`, by order.

    p(w | h) = (c(h w) + t(h) p(w | h')) / (c(h) + t(h)), where t(h) counts the different tokens
    that follow h and h' is h without its first token; the 1-gram is interpolated with the uniform
    1 / vocab_size (Witten and Bell, 1991). The context of the first tokens of `val` is the end of
    `train`.
    """
    tokens = np.concatenate([train, val])
    seen = len(train)
    contexts = np.zeros(len(tokens), np.int64)
    probability = np.full(len(val), 1 / vocab_size)
    losses = {}
    for order in range(1, max(orders) + 1):
        # N-grams are numbered by the rank of the pair (number of the context, last token), which
        # fits in 64 bits for any vocabulary.
        pairs, grams = np.unique(contexts * vocab_size + tokens, return_inverse=True)
        num_contexts = int(contexts.max()) + 1
        counts = np.bincount(grams[:seen], minlength=len(pairs))
        totals = np.bincount(contexts[:seen], minlength=num_contexts)[contexts[seen:]]
        followers = np.bincount(pairs[counts > 0] // vocab_size, minlength=num_contexts)
        kinds = followers[contexts[seen:]]
        interpolated = (counts[grams[seen:]] + kinds * probability) / np.maximum(totals + kinds, 1)
        probability = np.where(totals > 0, interpolated, probability)
        losses[order] = float(-np.log(probability).mean())
        # The context of the first token is the start of the text, with a number of its own.
        contexts = np.concatenate([[len(pairs)], grams[:-1]])
    return {order: losses[order] for order in orders}
