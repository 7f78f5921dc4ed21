"""Running text out of files, folders, globs, bundled samples and Hub data sets, and cleaned."""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxlm.config import DataConfig
from jaxlm.data.rows import Record, read_rows, read_table, take
from jaxlm.data.sources import DataError, decode, find_files, kind_of, open_file, reading

TEXT_COLUMN = "text"
# Controls other than tab and newline, byte-order marks, and halves of surrogate pairs, which JSON
# can spell but UTF-8 cannot.
DROPPED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class Corpus:
    """Cleaned documents: whole text files if `plain_text`, else rows."""

    documents: list[str]
    plain_text: bool


def read_corpus(config: DataConfig) -> Corpus:
    """Read and clean what `data.source` names; DataError says what is wrong with it."""
    column = config.text_column or TEXT_COLUMN
    if config.source.startswith("hf:"):
        # Streamed if only some rows are wanted, so that no more than those are fetched.
        streaming = config.max_documents is not None
        rows = read_rows(config.source, [column], config.hf_config, config.hf_split, streaming)
        documents, plain_text = take_texts(rows, column), False
    else:
        files = find_files(config.source)
        documents = itertools.chain.from_iterable(read_file(file, column) for file in files)
        plain_text = is_plain_text(files)
    documents = itertools.islice(documents, config.max_documents)
    documents = [clean(text, config.normalize) for text in documents]
    documents = [text for text in documents if text and not text.isspace()]
    if not documents:
        raise DataError(f"{config.source} is empty: there is no text to learn from")
    return Corpus(documents, plain_text)


def is_plain_text(files: list[Path]) -> bool:
    return all(kind_of(file) == ".txt" for file in files)


def read_file(file: Path, column: str) -> Iterator[str]:
    """The documents of one file, a row without text as an empty one."""
    if kind_of(file) == ".txt":
        with reading(file), open_file(file) as content:
            yield decode(content.read(), file)
    else:
        yield from take_texts(read_table(file, [column]), column)


def take_texts(rows: Iterable[Record], column: str) -> Iterator[str]:
    """The text column of rows."""
    for where, row in rows:
        text = take(where, row, column, "text_column")
        if not isinstance(text, str | None):
            raise DataError(f"{where} holds {text!r} in column {column!r} where text should be")
        yield text or ""


def clean(text: str, normalize: Literal["none", "NFC", "NFKC"] = "none") -> str:
    """End lines with a newline, drop what is not text, and bring it to a Unicode normal form."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = DROPPED.sub("", text)
    return text if normalize == "none" else unicodedata.normalize(normalize, text)
