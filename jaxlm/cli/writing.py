"""Files that verbs write: tables of answers, and a look at whether there is a place for them."""

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlm.config import JaxlmError

BLANKS = str.maketrans("\t\r\n", "   ")


class OutputError(JaxlmError):
    """A file that cannot be written."""


def check_folder(file: str | Path) -> None:
    """OutputError, before anything is computed, where a file has no folder to stand in."""
    if not (folder := Path(file).absolute().parent).is_dir():
        raise OutputError(f"cannot write {file}: there is no folder {folder}")


def with_answers(
    rows: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Each row with its answer, whose fields take no name that a column has."""
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
    """Rows as JSON lines, or with one column a field, whole or not at all.

    A TSV file has no quoting: tabs and ends of lines in its fields become spaces.
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
    # Half a surrogate pair, which JSON can spell, is written as JSON spells it.
    content = text.getvalue().encode("utf-8", "backslashreplace")
    if path is None:
        sys.stdout.write(content.decode("utf-8"))
        return
    temporary = Path(f"{path}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    print(f"{path}: {len(rows)} rows")


def cell(value: Any) -> str:
    if value is None:
        return ""
    return as_json(value) if isinstance(value, dict | list) else str(value)


def as_json(value: Any) -> str:
    """JSON with dates and the like as texts."""
    return json.dumps(value, ensure_ascii=False, default=str)
