"""Rows with named columns, out of JSONL, CSV, TSV and Parquet files and Hub data sets."""

import ast
import csv
import io
import json
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxlm.data.sources import DataError, find_files, kind_of, read_lines

Record = tuple[str, dict[str, Any]]  # where it stands, for messages, and its fields


def read_rows(
    source: str,
    columns: Sequence[str] | None,
    hf_config: str | None = None,
    hf_split: str = "train",
    streaming: bool = False,
) -> Iterator[Record]:
    """The rows of a file, folder, glob, sample or Hub data set, each with where it stands.

    A format that stores columns apart reads the given ones only, all of them for None. `streaming`
    fetches rows of the Hub as they are asked for. DataError says what is wrong with the source.
    """
    if source.startswith("hf:"):
        yield from read_hub(source, hf_config, hf_split, streaming)
        return
    for file in find_files(source):
        yield from read_table(file, columns)


def take(where: str, row: dict[str, Any], column: str, setting: str) -> Any:
    """A row's field; DataError names the columns there are, and what chooses one."""
    if column not in row:
        columns = ", ".join(repr(str(name)[:30]) for name in row)
        option = setting.replace("_", "-")
        raise DataError(
            f"{where} has no column {column!r}: set data.{setting}, or --{option} of evaluate and "
            f"predict, to {columns}"
        )
    return row[column]


def spells_lists(source: str) -> bool:
    """Whether a list must be spelled in a cell, as in CSV and TSV files."""
    if source.startswith("hf:"):
        return False
    return any(kind_of(file) in (".csv", ".tsv") for file in find_files(source))


def read_list(where: str, cell: Any) -> Any:
    """A cell in brackets as the list that it spells, in JSON or in Python; others as they are."""
    if not isinstance(cell, str) or not (cell.startswith("[") and cell.endswith("]")):
        return cell
    try:
        return json.loads(cell)
    except ValueError:
        pass
    try:
        values = ast.literal_eval(cell)
        pieces = [token.type for token in tokenize.generate_tokens(io.StringIO(cell).readline)]
        # NumPy writes no commas, and Python would make one text of texts without them.
        if pieces.count(tokenize.STRING) <= len(values):
            return values
    except (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError):
        pass
    raise DataError(f"{where} holds {cell[:60]!r}, which is no list as JSON or Python writes it")


def read_table(file: Path, columns: Sequence[str] | None) -> Iterator[Record]:
    match kind_of(file):
        case ".jsonl":
            yield from read_jsonl(file)
        case ".csv":
            yield from read_csv(file)
        case ".tsv":
            yield from read_tsv(file)
        case ".parquet":
            yield from read_parquet(file, columns)
        case _:
            raise DataError(f"{file} is plain text, but rows with named columns are needed")


def read_jsonl(file: Path) -> Iterator[Record]:
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


def read_csv(file: Path) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)
    # Strict, or an unclosed quote would swallow the rest of the file in silence.
    rows = csv.reader(read_lines(file), strict=True)
    try:
        yield from name_fields(file, ((rows.line_num, row) for row in rows if row))
    except csv.Error as error:
        raise DataError(f"{file} line {rows.line_num} is not CSV: {error}") from None


def read_tsv(file: Path) -> Iterator[Record]:
    """Tab-separated rows; a quotation mark is text, as the format has no quoting."""
    rows = (line.rstrip("\r\n").split("\t") for line in read_lines(file))
    return name_fields(file, ((i, row) for i, row in enumerate(rows, 1) if row != [""]))


def name_fields(file: Path, rows: Iterator[tuple[int, list[str]]]) -> Iterator[Record]:
    _, names = next(rows, (0, []))
    for number, row in rows:
        where = f"{file} line {number}"
        if len(row) != len(names):
            raise DataError(f"{where} has {len(row)} fields where the header has {len(names)}")
        yield where, dict(zip(names, row, strict=True))


def read_parquet(file: Path, columns: Sequence[str] | None) -> Iterator[Record]:
    import pyarrow
    from pyarrow import parquet

    try:
        content = parquet.ParquetFile(file)
        names = content.schema_arrow.names
        # Where one is missing, all that there are, for the message that names them.
        wanted = list(columns) if columns and set(columns) <= set(names) else names
        batches = content.iter_batches(columns=wanted)
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from ((f"{file} row {i}", row) for i, row in enumerate(rows, 1))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} is not a Parquet file that can be read: {error}") from None


def read_hub(source: str, config: str | None, split: str, streaming: bool) -> Iterator[Record]:
    name = source.removeprefix("hf:")
    if Path(name).exists():
        raise DataError(f"hf: names a data set of the Hugging Face Hub: write {name!r} without it")
    import datasets

    try:
        rows = datasets.load_dataset(name, config, split=split, streaming=streaming)
        names = class_names(getattr(rows, "features", None) or {})
        for i, row in enumerate(rows, 1):
            named = {column: name_classes(row[column], texts) for column, texts in names.items()}
            yield f"{source} row {i}", {**row, **named}
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{source} cannot be loaded from the Hub: {reason}") from None


def class_names(features: Any) -> dict[str, list[str]]:
    """The names behind the numbers of each column that holds classes, or lists of them."""
    inner = {column: getattr(kind, "feature", kind) for column, kind in features.items()}
    return {column: kind.names for column, kind in inner.items() if hasattr(kind, "names")}


def name_classes(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [name_classes(item, names) for item in value]
    # A test split often says -1 for what is not told.
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
