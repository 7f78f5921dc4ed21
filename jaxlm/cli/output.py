"""What verbs share: how one is declared, and how results are shown and written."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxlm.files import write_file

BLANKS = str.maketrans("\t\r\n", "   ")


class Verb(NamedTuple):
    """A verb of the command: one line of help, a declaration of its arguments, and what it does."""

    summary: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def show(args: argparse.Namespace, title: str, values: Mapping[str, Any]) -> None:
    """Print named values: one JSON object with `--json`, else a table without the lists."""
    if args.json:
        print(json.dumps(values, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", "", title=title, show_header=False)
    for name, value in values.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
        elif not isinstance(value, list | dict):
            table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    Console().print(table)


def with_answers(
    rows: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Each row with its answer; an answer's field is called predicted_NAME if NAME is a column."""
    columns = {name for row in rows for name in row}
    names = {name: name for answer in answers for name in answer}
    for field in names:
        while names[field] in columns:
            names[field] = f"predicted_{names[field]}"
    return [
        {**row, **{names[name]: value for name, value in answer.items()}}
        for row, answer in zip(rows, answers, strict=True)
    ]


def write_table(path: str | None, kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as .jsonl, .csv or .tsv (`kind`), or print them where there is no path.

    TSV has no quoting: tabs and line ends in its fields become spaces.

    Raises: WriteError.
    """
    text = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    if kind == ".jsonl":
        text.writelines(as_json(row) + "\n" for row in rows)
    else:
        table = [names, *([cell(row.get(name)) for name in names] for row in rows)]
        if kind == ".csv":
            csv.writer(text).writerows(table)
        else:
            lines = ("\t".join(field.translate(BLANKS) for field in fields) for fields in table)
            text.writelines(line + "\n" for line in lines)
    # JSON input can hold half a surrogate pair, which UTF-8 cannot; it is written as an escape.
    content = text.getvalue().encode("utf-8", "backslashreplace")
    if path is None:
        sys.stdout.write(content.decode("utf-8"))
        return
    write_file(path, content)
    print(f"{path}: {len(rows)} rows")


def cell(value: Any) -> str:
    if value is None:
        return ""
    return as_json(value) if isinstance(value, dict | list) else str(value)


def as_json(value: Any) -> str:
    """JSON in which dates and the like are strings."""
    return json.dumps(value, ensure_ascii=False, default=str)
