"""What verbs share: their declaration, and printing and writing results."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from jaxlm.config import ConfigError, JaxlmError, read_yaml
from jaxlm.files import WriteError, check_parent, file_hash, write_file
from jaxlm.runtime import user_cache

BLANKS = str.maketrans("\t\r\n", "   ")


class Verb(NamedTuple):
    """A verb of the command line: one line of help, its arguments, and its function.

    The function returns the exit status, or nothing for 0. With `takes_fields`, words that are no
    argument of its own are overrides of a config.
    """

    summary: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]
    takes_fields: bool = False


def declare_source(parser: argparse.ArgumentParser) -> None:
    help = "a run directory, a checkpoint or a Hugging Face model"
    parser.add_argument("source", metavar="RUN", help=help)


def declare_overwrite(parser: argparse.ArgumentParser, option: str) -> None:
    parser.add_argument("--overwrite", action="store_true", help=f"replace the file of {option}")


def check_output(path: str | Path, overwrite: bool, sources: Iterable[Path] = ()) -> None:
    """Check, before anything is computed, that a file may be written.

    Raises: WriteError for a file that exists, unless a verb wrote it as a table or `overwrite` is
    true; and always for one of the `sources` or a file of a run.
    """
    path = Path(path)
    check_parent(path)
    if is_of_run(path):
        raise WriteError(f"{path} is a file of a run; choose another place")
    if not path.exists():
        return
    if path.is_dir():
        raise WriteError(f"cannot write {path}: it is a folder")
    if any(source.exists() and path.samefile(source) for source in sources):
        raise WriteError(f"{path} is also the input; choose another place to write to")
    if not overwrite and not was_written(path):
        raise WriteError(f"{path} is there already; --overwrite replaces it")


def source_files(source: str) -> list[Path]:
    """The files of a source of rows; empty for a source that is not made of files."""
    from jaxlm.data.sources import WITHOUT_FILES, find_files, joined_texts

    with suppress(JaxlmError):  # reported when it is read
        if (joined := joined_texts(source)) is not None:
            return list(joined.values())
        return [] if source.startswith(WITHOUT_FILES) else find_files(source)
    return []


def is_of_run(path: Path) -> bool:
    """Whether a path is one that training writes in a run directory."""
    path = path.absolute()
    for folder in path.parents:
        if not (folder / "config.yaml").is_file():
            continue
        from jaxlm.training.run_directory import CHECKPOINTS, FILES, FOLDERS

        with suppress(ConfigError):
            name = path.relative_to(folder).parts[0]
            own = name in (*FILES, *FOLDERS, CHECKPOINTS)
            if own and "run_format" in read_yaml(folder / "config.yaml"):
                return True
    return False


def note_of(path: Path) -> Path:
    """The file that records the hash of what a verb wrote to a path."""
    name = xxhash.xxh3_128_hexdigest(str(path.absolute()).encode("utf-8", "surrogateescape"))
    return user_cache() / "written" / name


def was_written(path: Path) -> bool:
    """Whether a file is a table written by a verb and unchanged since, so safe to replace."""
    with suppress(OSError):
        return note_of(path).read_text() == file_hash(path)
    return False


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
    """Each row with its answer; a field NAME is called predicted_NAME if it is also a column."""
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
    write_text(path, text.getvalue(), f"{len(rows)} rows")


def write_lines(path: str | None, lines: Sequence[str]) -> None:
    """Write a text a line, or print them where there is no path. Raises: WriteError."""
    write_text(path, "".join(line + "\n" for line in lines), f"{len(lines)} lines")


def write_text(path: str | None, text: str, told: str) -> None:
    """Write a file and note that it was written here, or print it; `told` says what it holds."""
    # JSON input can hold lone surrogates, which UTF-8 cannot; they are written as escapes.
    content = text.encode("utf-8", "backslashreplace")
    if path is None:
        sys.stdout.write(content.decode("utf-8"))
        return
    write_file(path, content)
    with suppress(OSError, WriteError):  # without a note, the next write needs --overwrite
        note = note_of(Path(path))
        note.parent.mkdir(parents=True, exist_ok=True)
        write_file(note, file_hash(Path(path)))
    print(f"{path}: {told}")


def cell(value: Any) -> str:
    if value is None:
        return ""
    return as_json(value) if isinstance(value, dict | list) else str(value)


def as_json(value: Any) -> str:
    """JSON, with values such as dates as strings."""
    return json.dumps(value, ensure_ascii=False, default=str)
