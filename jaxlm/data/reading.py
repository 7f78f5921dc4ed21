"""Files, folders, globs, bundled samples and Hub data sets, read as a list of documents."""

import csv
import difflib
import glob
import gzip
import hashlib
import itertools
import json
import lzma
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxlm.config import DataConfig
from jaxlm.data.clean import clean
from jaxlm.data.errors import DataError

SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")
COMPRESSED = {".gz": gzip.open, ".xz": lzma.open}
SAMPLES = {
    "mini_zh": "mini_zh.txt",
    "songci": "songci.jsonl.xz",
    "tinyshakespeare": "tinyshakespeare.txt",
}


@dataclass(frozen=True)
class Corpus:
    """Cleaned documents: whole text files if `plain_text`, else rows."""

    documents: list[str]
    plain_text: bool


def read_corpus(config: DataConfig) -> Corpus:
    """Read and clean what `data.source` names; DataError says what is wrong with it."""
    if config.source.startswith("hf:"):
        documents, plain_text = take_texts(read_hub(config), config.text_column), False
    else:
        files = find_files(config.source)
        documents = itertools.chain.from_iterable(
            read_file(file, config.text_column) for file in files
        )
        plain_text = is_plain_text(files)
    documents = itertools.islice(documents, config.max_documents)
    documents = [clean(text, config.normalize) for text in documents]
    documents = [text for text in documents if text and not text.isspace()]
    if not documents:
        raise DataError(f"{config.source} is empty: there is no text to learn from")
    return Corpus(documents, plain_text)


def find_files(source: str) -> list[Path]:
    """The files of a sample, path, folder or glob, sorted by path."""
    if source.startswith("sample:"):
        name = source.removeprefix("sample:")
        if name not in SAMPLES:
            near = difflib.get_close_matches(name, SAMPLES, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SAMPLES)}"
            raise DataError(f"no bundled sample is called {name!r}: {hint}")
        return [Path(__file__).parent / "samples" / SAMPLES[name]]
    path = Path(source).expanduser()
    if path.is_dir():
        found = [
            file
            for file in path.rglob("*")
            if kind_of(file) in SUFFIXES
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
    elif path.is_file():
        found = [path]
    else:
        found = [Path(match) for match in glob.glob(str(path), recursive=True)]
    found = sorted(file for file in found if file.is_file())
    if not found:
        raise DataError(f"data.source {source!r} is no file, and no folder or glob that holds any")
    for file in found:
        if kind_of(file) not in SUFFIXES:
            raise DataError(f"{file} is none of the kinds that can be read: {', '.join(SUFFIXES)}")
    return found


def kind_of(file: Path) -> str:
    """The suffix in lower case, without that of a compression."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in COMPRESSED), "")


def is_plain_text(files: list[Path]) -> bool:
    return all(kind_of(file) == ".txt" for file in files)


def fingerprint_source(source: str) -> str:
    """A hash of the contents; of a Hub data set the name only, as what it holds is not here."""
    if source.startswith("hf:"):
        return source
    whole = hashlib.sha256()
    for file in find_files(source):
        with reading(file), file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        whole.update(f"{kind_of(file)} {digest}\n".encode())
    return whole.hexdigest()


def read_file(file: Path, column: str) -> Iterator[str]:
    """The documents of one file, a row without text as an empty one."""
    match kind_of(file):
        case ".txt":
            with reading(file), open_file(file) as content:
                yield decode(content.read(), file)
        case ".jsonl":
            yield from take_texts(read_jsonl(file), column)
        case ".csv":
            yield from take_texts(read_csv(file), column)
        case ".tsv":
            yield from take_texts(read_tsv(file), column)
        case _:
            yield from take_texts(read_parquet(file, column), column)


def take_texts(rows: Iterable[tuple[str, dict[str, Any]]], column: str) -> Iterator[str]:
    """The text column of rows that come with a word on where they stand."""
    for where, row in rows:
        if column not in row:
            columns = ", ".join(repr(str(name)[:30]) for name in row)
            raise DataError(f"{where} has no column {column!r}: set data.text_column to {columns}")
        text = row[column]
        if not isinstance(text, str | None):
            raise DataError(f"{where} holds {text!r} in column {column!r} where text should be")
        yield text or ""


def read_jsonl(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_lines(file), 1):
        where = f"{file} line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            message = f"{where} is not JSON: {error.msg} at column {error.colno}"
            raise DataError(message) from None
        if not isinstance(row, dict):
            raise DataError(f"{where} is not a JSON object with named fields")
        yield where, row


def read_csv(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(sys.maxsize)
    # Strict, or an unclosed quote would swallow the rest of the file in silence.
    rows = csv.reader(read_lines(file), strict=True)
    try:
        yield from name_fields(file, ((rows.line_num, row) for row in rows if row))
    except csv.Error as error:
        raise DataError(f"{file} line {rows.line_num} is not CSV: {error}") from None


def read_tsv(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tab-separated rows; a quotation mark is text, as the format has no quoting."""
    rows = (line.rstrip("\r\n").split("\t") for line in read_lines(file))
    return name_fields(file, ((i, row) for i, row in enumerate(rows, 1) if row != [""]))


def name_fields(
    file: Path, rows: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    _, names = next(rows, (0, []))
    for number, row in rows:
        where = f"{file} line {number}"
        if len(row) != len(names):
            raise DataError(f"{where} has {len(row)} fields where the header has {len(names)}")
        yield where, dict(zip(names, row, strict=True))


def read_parquet(file: Path, column: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        content = parquet.ParquetFile(file)
        names = content.schema_arrow.names
        # Without the column, all of them, for the message that names them.
        wanted = [column] if column in names else names
        batches = content.iter_batches(columns=wanted)
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from ((f"{file} row {i}", row) for i, row in enumerate(rows, 1))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} is not a Parquet file that can be read: {error}") from None


def read_hub(config: DataConfig) -> Iterator[tuple[str, dict[str, Any]]]:
    name = config.source.removeprefix("hf:")
    if Path(name).exists():
        raise DataError(f"hf: names a data set of the Hugging Face Hub: write {name!r} without it")
    import datasets

    try:
        # Streamed if only some rows are wanted, so that no more than those are fetched.
        rows = datasets.load_dataset(
            name,
            config.hf_config,
            split=config.hf_split,
            streaming=config.max_documents is not None,
        )
        yield from ((f"{config.source} row {i}", row) for i, row in enumerate(rows, 1))
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{config.source} cannot be loaded from the Hub: {reason}") from None


def read_lines(file: Path) -> Iterator[str]:
    """Lines with their ends, one at a time, so that a few rows of a large file cost little."""
    offset = 0
    with reading(file), open_file(file) as content:
        for line in content:
            yield decode(line, file, offset)
            offset += len(line)


def decode(content: bytes, file: Path, offset: int = 0) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8: byte {offset + error.start} is {content[error.start]:#04x}; "
            "convert the file to UTF-8"
        ) from None
    return text.removeprefix("\ufeff") if offset == 0 else text


def open_file(file: Path) -> Any:
    return COMPRESSED.get(file.suffix.lower(), open)(file, "rb")


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """What goes wrong below, told as one sentence."""
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file} cannot be read: {reason}") from None
