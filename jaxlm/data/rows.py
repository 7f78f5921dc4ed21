"""Rows with named columns: of JSON, CSV, TSV, Parquet and CoNLL files, parallel texts, the Hub."""

import csv
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlm.data.hub_rows import read_hub
from jaxlm.data.sources import (
    TABLES,
    TAGGED,
    TREEBANK,
    WITHOUT_FILES,
    DataError,
    find_part,
    joined_texts,
    kind_of,
    kinds_read,
    parallel_files,
    parts_of,
)
from jaxlm.data.tagged import is_tagged, read_tagged, read_treebank
from jaxlm.data.text_files import read_each, read_lines
from jaxlm.data.toys import read_toy

Record = tuple[str, dict[str, Any]]  # file and line, for messages, and the fields


def read_rows(
    source: str,
    columns: Sequence[str] | None,
    hf_config: str | None = None,
    hf_split: str = "train",
    streaming: bool = False,
    skip_unreadable: bool = False,
    remarks: list[str] | None = None,
    header: Sequence[str] = (),
) -> Iterator[Record]:
    """The rows of a file, folder, glob, sample or Hub data set, each with its file and line.

    Parquet files read only the given columns, or all for None. `streaming` downloads rows of the
    Hub as they are needed; `header` names the columns of CSV and TSV files. Files that are skipped,
    such as those without rows in a folder, are added to `remarks`.

    Raises: DataError for a source that cannot be found or read.
    """
    if source.startswith(WITHOUT_FILES):
        hub = source.startswith("hf:")
        yield from read_hub(source, hf_config, hf_split, streaming) if hub else read_toy(source)
        return
    remarks = [] if remarks is None else remarks
    tables, texts = [], []
    joined = joined_texts(source)
    for part in [source] if joined else parts_of(source):
        if (side_by_side := joined or parallel_files(part)) is not None:
            yield from read_parallel(side_by_side)
            continue
        for file in find_part(part):
            (tables if kind_of(file) in TABLES else texts).append(file)
    if tables and (remark := kinds_read(source, TABLES)):
        remarks.append(remark)
    yield from read_each(
        tables or texts, lambda file: read_table(file, columns, header), skip_unreadable, remarks
    )


def take(where: str, row: dict[str, Any], column: str, option: str) -> Any:
    """The field of a row in a column, which `option` of the data section names.

    Raises: DataError, which lists the columns, where the row lacks it.
    """
    if column not in row:
        columns = ", ".join(repr(str(name)[:30]) for name in row)
        raise DataError(
            f"{where} has no column {column!r}: set data.{option}, or --{option.replace('_', '-')} "
            f"of evaluate and predict, to {columns}"
        )
    return row[column]


def take_texts(rows: Iterable[Record], column: str) -> Iterator[str]:
    """The text column of rows."""
    for where, row in rows:
        text = take(where, row, column, "text_column")
        if text != text:  # NaN, as tables write what is missing
            text = None
        if not isinstance(text, str | None):
            raise DataError(f"{where} holds {text!r} in column {column!r} where text should be")
        yield text or ""


def read_table(
    file: Path, columns: Sequence[str] | None, header: Sequence[str] = ()
) -> Iterator[Record]:
    match kind_of(file):
        case ".jsonl":
            yield from read_jsonl(file)
        case ".json":
            yield from read_json(file)
        case ".csv":
            yield from read_csv(file, header)
        case ".parquet":
            yield from read_parquet(file, columns)
        case kind if kind == TREEBANK:
            yield from read_treebank(file)
        case kind if kind in TAGGED or is_tagged(file):
            yield from read_tagged(file)
        case ".tsv":
            yield from read_tsv(file, header)
        case _:
            raise DataError(f"{file} is plain text, but rows with named columns are needed")


def read_jsonl(file: Path) -> Iterator[Record]:
    for number, line in enumerate(read_lines(file), 1):
        if line.strip():
            where = f"{file} line {number}"
            yield where, parse_row(where, line)


def read_json(file: Path) -> Iterator[Record]:
    """The objects of a list, alone or as the only list in an object; or of lines, as in JSONL."""
    lines = list(read_lines(file))
    held = [(i, line) for i, line in enumerate(lines, 1) if line.strip()]
    try:
        value = parse_json(f"{file}", "".join(lines))
    except DataError:
        if len(held) < 2 or not held[0][1].rstrip().endswith("}"):
            raise
        yield from ((f"{file} line {i}", parse_row(f"{file} line {i}", line)) for i, line in held)
        return
    if isinstance(value, dict):
        lists = [rows for rows in value.values() if isinstance(rows, list)]
        value = lists[0] if len(lists) == 1 and all_rows(lists[0]) else [value]
    if not all_rows(value):
        raise DataError(f"{file} is not a list of JSON objects with named fields")
    yield from ((f"{file} row {i}", row) for i, row in enumerate(value, 1))


def all_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def parse_row(where: str, line: str) -> dict[str, Any]:
    row = parse_json(where, line)
    if not isinstance(row, dict):
        raise DataError(f"{where} is not a JSON object with named fields")
    return row


def parse_json(where: str, text: str) -> Any:
    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) < len(pairs):
            raise DataError(f"{where} has the field {repeated(name for name, _ in pairs)!r} twice")
        return row

    try:
        return json.loads(text, object_pairs_hook=fields)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON: {error.msg} at column {error.colno}") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{where} cannot be read as JSON: {error}") from None
    except RecursionError:
        raise DataError(f"{where} cannot be read as JSON: it is nested too deeply") from None


def read_csv(file: Path, header: Sequence[str] = ()) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)
    # Strict, as an unclosed quote would otherwise take in the rest of the file silently.
    rows = csv.reader(read_lines(file), strict=True)
    try:
        yield from name_fields(file, ",", ((rows.line_num, row) for row in rows if row), header)
    except csv.Error as error:
        raise DataError(f"{file} line {rows.line_num} is not CSV: {error}") from None


def read_tsv(file: Path, header: Sequence[str] = ()) -> Iterator[Record]:
    """Tab-separated rows; a quotation mark is text, as the format has no quoting."""
    rows = enumerate((line.rstrip("\r\n").split("\t") for line in read_lines(file)), 1)
    return name_fields(file, "\t", ((i, row) for i, row in rows if row != [""]), header)


def name_fields(
    file: Path, separator: str, rows: Iterator[tuple[int, list[str]]], header: Sequence[str] = ()
) -> Iterator[Record]:
    """Rows as mappings, by the names of `header`, else of the first row.

    Raises: DataError for a wrong separator, a repeated name or a row of another length.
    """
    names = list(header) or next(rows, (0, []))[1]
    if name := repeated(filter(None, names)):
        raise DataError(f"{file} has two columns with the name {name!r}: rename one")
    other = next((mark for mark in ";\t,|" if mark in names[0]), None) if len(names) == 1 else None
    if other and other != separator:
        found = {"\t": "a tab", ",": "a comma"}.get(other, repr(other))
        wanted = "tabs" if separator == "\t" else "commas"
        raise DataError(
            f"{file} has {found} between its columns where a {kind_of(file)} file has {wanted}: "
            f"save it with {wanted}"
        )
    for number, row in rows:
        where = f"{file} line {number}"
        if len(row) != len(names):
            told = "data.columns" if header else "the header"
            raise DataError(f"{where} has {len(row)} fields where {told} has {len(names)}")
        yield where, dict(zip(names, row, strict=True))


def repeated(names: Iterable[str]) -> str | None:
    """The first name that occurs twice."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def read_parallel(files: Mapping[str, Path]) -> Iterator[Record]:
    """The lines of parallel text files as rows with one column a file."""
    lines = itertools.zip_longest(*map(read_lines, files.values()))
    for number, row in enumerate(lines, 1):
        for file, line in zip(files.values(), row, strict=True):
            if line is None:
                raise DataError(f"{file} has {number - 1} lines, fewer than the files beside it")
        texts = (line.rstrip("\r\n") for line in row)
        yield (
            f"line {number} of {' and '.join(map(str, files.values()))}",
            dict(zip(files, texts, strict=True)),
        )


def read_parquet(file: Path, columns: Sequence[str] | None) -> Iterator[Record]:
    import pyarrow
    from pyarrow import parquet

    try:
        content = parquet.ParquetFile(file)
        names = content.schema_arrow.names
        if name := repeated(names):
            raise DataError(f"{file} has two columns with the name {name!r}: rename one")
        # If one is missing, all are read, for the message that lists them.
        wanted = list(columns) if columns and set(columns) <= set(names) else names
        batches = content.iter_batches(columns=wanted)
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from ((f"{file} row {i}", row) for i, row in enumerate(rows, 1))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} is not a Parquet file that can be read: {error}") from None
