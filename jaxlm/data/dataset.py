"""Token stores from a config: read, clean and split text, train a tokenizer, encode, cache."""

import difflib
import hashlib
import itertools
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers

from jaxlm.config import DataConfig
from jaxlm.data.rows import read_rows, read_table, take_texts
from jaxlm.data.sources import (
    DOCUMENTS,
    DataError,
    find_files,
    kind_of,
    kinds_read,
    parallel_files,
    parts_of,
)
from jaxlm.data.store import STORE_FORMAT, TokenStore, open_store, write_store
from jaxlm.data.text_files import clean, fingerprint_source, read_document, read_each
from jaxlm.files import WriteError, folder_in_place
from jaxlm.runtime import user_cache
from jaxlm.tokenizer import END_OF_TEXT, KINDS, Tokenizer, TokenizerError, train_tokenizer

TEXT_COLUMN = "text"
# The remark about repeated texts, by data.duplicates.
REPEATS = {
    "group": "rows repeat the text of another and stay on its side of the split",
    "drop": "rows repeat the text of another, left out",
}


@dataclass(frozen=True)
class Corpus:
    """Cleaned documents: whole text files if `plain_text`, else rows; and remarks on them."""

    documents: list[str]
    plain_text: bool
    remarks: tuple[str, ...] = ()


def read_corpus(config: DataConfig) -> Corpus:
    """Read and clean the text of `data.source`.

    Raises: DataError where it cannot be read or holds no text.
    """
    column, plain_text = config.text_column or TEXT_COLUMN, is_plain_text(config.source)
    remarks: list[str] = []
    if config.source.startswith("hf:") or any(map(parallel_files, parts_of(config.source))):
        # Streamed if only some rows are wanted, so that only those are downloaded.
        streaming = config.max_documents is not None
        rows = read_rows(config.source, [column], config.hf_config, config.hf_split, streaming)
        documents = take_texts(rows, column)
    else:
        files = find_files(config.source)
        remarks += filter(None, [kinds_read(config.source)])
        documents = read_each(
            files,
            lambda file: read_file(file, column, config.columns),
            config.skip_unreadable,
            remarks,
        )
    documents = itertools.islice(documents, config.max_documents)
    documents = [clean(text, config.normalize) for text in documents]
    documents = [text for text in documents if text and not text.isspace()]
    if not plain_text and config.duplicates != "keep" and (again := count_repeats(documents)):
        if config.duplicates == "drop":
            documents = list(dict.fromkeys(documents))
        remarks.append(f"{again:,} {REPEATS[config.duplicates]}")
    if not documents:
        reason = f" ({remarks[-1]})" if remarks else ""
        raise DataError(f"{config.source} is empty: there is no text to learn from{reason}")
    return Corpus(documents, plain_text, tuple(remarks))


def is_plain_text(source: str) -> bool:
    """Whether a source is files of plain text, not rows."""
    if source.startswith("hf:") or any(map(parallel_files, parts_of(source))):
        return False
    return all(kind_of(file) in DOCUMENTS for file in find_files(source))


def read_file(file: Path, column: str, header: Sequence[str] = ()) -> Iterator[str]:
    """The documents of one file; a row without text is an empty document."""
    if kind_of(file) in DOCUMENTS:
        yield read_document(file)
    else:
        yield from take_texts(read_table(file, [column], header), column)


def count_repeats(texts: Sequence[object]) -> int:
    """How many of the texts repeat an earlier one."""
    return len(texts) - len(set(texts))


@dataclass(frozen=True, eq=False)
class Dataset:
    """The two splits in tokens; `fingerprint` is a hash of both and of the tokenizer.

    `remarks` say what was read, repeated or skipped, where the user should know.
    """

    tokenizer: Tokenizer
    train: TokenStore
    val: TokenStore | None
    fingerprint: str
    remarks: tuple[str, ...] = ()


def prepare(
    config: DataConfig,
    seed: int = 0,
    cache_dir: Path | None = None,
    tokenizer: Tokenizer | None = None,
    specials: tuple[str, ...] = (),
    whole: bool = False,
) -> Dataset:
    """Open the token stores for a config from the cache, after making them if they are missing.

    `seed` shuffles rows before the split. `tokenizer` replaces `data.tokenizer`; one trained here
    gets `specials` as its first tokens. The cache is `cache_dir`, else $JAXLM_CACHE, else
    ~/.cache/jaxlm. Its key includes the contents of the files, so it is never stale (a Hub data set
    is assumed not to change). With `whole`, for evaluation, rows keep their order and the text may
    be shorter than a window.

    Raises: DataError or TokenizerError for a mistake in the text or the config.
    """
    if tokenizer is None and config.tokenizer not in KINDS:
        tokenizer = load_tokenizer(config.tokenizer)
    order = None if whole else seed
    key = cache_key(config, order, tokenizer, specials)
    folder = (cache_dir or user_cache()) / "tokens" / key
    dataset = open_dataset(folder, tokenizer)
    if dataset is None:
        if folder.exists():
            print(f"the tokens in {folder} are damaged and are made again", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
        corpus, failure = read_corpus(config), ""
        try:
            build(config, corpus, order, folder, tokenizer, specials)
        except WriteError as error:  # fine if another process has written the same
            failure = str(error)
        dataset = open_dataset(folder, tokenizer)
        if dataset is None:
            raise DataError(f"{failure}; set JAXLM_CACHE to a folder that can be written")
    if not whole:
        check_lengths(dataset, config)
    return dataset


def load_tokenizer(name: str) -> Tokenizer:
    near = difflib.get_close_matches(name, KINDS, 1)
    if near and not Path(name).exists():
        raise TokenizerError(
            f"data.tokenizer {name!r} is neither a kind nor a file; did you mean {near[0]}?"
        )
    return Tokenizer.load(Path(name).expanduser())


def cache_key(
    config: DataConfig, seed: int | None, tokenizer: Tokenizer | None, specials: tuple[str, ...]
) -> str:
    """A hash of everything that the stores depend on, which the window length is not part of."""
    hub = config.source.startswith("hf:")
    rows = not is_plain_text(config.source)
    trained = [config.tokenizer, config.vocab_size, tokenizers.__version__, *specials]
    parts = {
        "format": STORE_FORMAT,
        "source": fingerprint_source(config.source),
        "hub": [config.hf_config, config.hf_split] if hub else None,
        "rows": [config.text_column or TEXT_COLUMN, seed, config.duplicates, *config.columns]
        if rows
        else None,
        "max_documents": config.max_documents,
        "skip_unreadable": config.skip_unreadable,
        "normalize": config.normalize,
        "val_fraction": config.val_fraction,
        "tokenizer": tokenizer.fingerprint if tokenizer else trained,
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def open_dataset(folder: Path, tokenizer: Tokenizer | None) -> Dataset | None:
    """The stores in a cache folder; None if one is missing or damaged."""
    try:
        tokenizer = tokenizer or Tokenizer.load(folder)
        remarks = tuple(json.loads((folder / "remarks.json").read_text(encoding="utf-8")))
    except (TokenizerError, OSError, ValueError, TypeError):
        return None
    train, val = (open_store(folder / name, tokenizer) for name in ("train", "val"))
    if train is None or val is None:
        return None
    prints = [tokenizer.fingerprint, train.fingerprint, val.fingerprint]
    fingerprint = hashlib.sha256(" ".join(prints).encode()).hexdigest()[:16]
    return Dataset(tokenizer, train, val if val.num_bytes else None, fingerprint, remarks)


def build(
    config: DataConfig,
    corpus: Corpus,
    seed: int | None,
    folder: Path,
    tokenizer: Tokenizer | None,
    specials: tuple[str, ...],
) -> None:
    """Write both stores, and the tokenizer if it is trained here, into a cache folder."""
    train, val = split_corpus(corpus, config.val_fraction, seed, config.duplicates == "group")
    if not train:
        raise DataError(
            f"{config.source} holds too little text to keep {config.val_fraction} of it for "
            "validation; give more text, or lower data.val_fraction"
        )
    many = not corpus.plain_text or len(corpus.documents) > 1
    with folder_in_place(folder) as temporary:
        remarks = json.dumps(corpus.remarks, ensure_ascii=False)
        (temporary / "remarks.json").write_text(remarks, encoding="utf-8")
        used = tokenizer
        if used is None:
            # A char tokenizer covers both splits, or validation could have unknown characters.
            texts = corpus.documents if config.tokenizer == "char" else train
            specials = specials or ((END_OF_TEXT,) if many else ())
            used = train_tokenizer(config.tokenizer, texts, config.vocab_size, specials)
            used.save(temporary)
        end = ending(used) if many else None
        write_store(temporary / "train", train, used, end)
        write_store(temporary / "val", val, used, end)


def ending(tokenizer: Tokenizer) -> int | None:
    """The token after each document: that of the end of a text, a separator, or a newline."""
    for token in (tokenizer.eos_id, tokenizer.sep_id):
        if token is not None:
            return token
    try:
        newline = tokenizer.encode("\n")
    except TokenizerError:
        return None
    return newline[0] if len(newline) == 1 else None


def split_corpus(
    corpus: Corpus, val_fraction: float, seed: int | None, group: bool = True
) -> tuple[list[str], list[str]]:
    """Training and validation documents: plain text is cut by characters, rows are shuffled first.

    With `group`, repeated rows are all on the side of the first. Without a seed, rows keep their
    order.
    """
    documents = corpus.documents
    if not corpus.plain_text:
        order = list(range(len(documents)))
        if seed is not None:
            order = np.random.default_rng(seed).permutation(len(documents)).tolist()
        cut = int(len(documents) * (1 - val_fraction))
        if group:
            places: dict[str, int] = {}
            for place, i in enumerate(order):
                places.setdefault(documents[i], place)
            order.sort(key=lambda i: places[documents[i]])  # stable: unchanged without repeats
            while 0 < cut < len(order) and documents[order[cut]] == documents[order[cut - 1]]:
                cut += 1
        return [documents[i] for i in order[:cut]], [documents[i] for i in order[cut:]]
    left = int(sum(map(len, documents)) * (1 - val_fraction))
    train, val = [], []
    for text in documents:
        train.append(text[:left])
        val.append(text[left:])
        left = max(0, left - len(text))
    return list(filter(None, train)), list(filter(None, val))


def check_lengths(dataset: Dataset, config: DataConfig) -> None:
    held = len(dataset.train)
    if held <= config.seq_len:
        raise DataError(
            f"{config.source} leaves {held} token(s) to train on, but one window takes "
            f"{config.seq_len + 1}; lower data.seq_len or give more text"
        )
    held = len(dataset.val) if dataset.val else 0
    if config.val_fraction > 0 and held < 2:
        raise DataError(
            f"{config.source} leaves {held} token(s) to validate on, but there must be 2; "
            "raise data.val_fraction, or set it to 0"
        )
