"""`jaxlm predict`: a fine-tuned model's answers to the rows of a file."""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.cli.evaluate import data_of, declare_columns
from jaxlm.cli.output import Verb, with_answers, write_table
from jaxlm.config import JaxlmError
from jaxlm.config.options import TEXT_COLUMN
from jaxlm.files import check_parent
from jaxlm.runtime import keep_compiled_programs

if TYPE_CHECKING:
    from jaxlm.data.rows import Row


def declare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help="a run directory, a checkpoint or a Hugging Face model")
    help_input = "rows (csv, tsv, jsonl, parquet), or a .txt of one text per line"
    add("--input", required=True, metavar="FILE", help=help_input)
    help_output = (
        "a .jsonl, .csv or .tsv to write; default: JSON lines on the screen; an answer with the "
        "name of a column of the input is written as predicted_NAME"
    )
    add("--output", metavar="FILE", help=help_output)
    declare_columns(parser)


def run(args: argparse.Namespace) -> None:
    from jaxlm.data.rows import read_rows
    from jaxlm.loading import load
    from jaxlm.tasks.inference import task_of
    from jaxlm.tasks.measuring import answers_to
    from jaxlm.tasks.rowset import items_of

    kind = Path(args.output).suffix.lower() if args.output else ".jsonl"
    if kind not in (".jsonl", ".csv", ".tsv"):
        raise JaxlmError(f"--output must end in .jsonl, .csv or .tsv, got {args.output}")
    if args.output:
        check_parent(args.output)
    keep_compiled_programs()
    loaded = load(args.source)
    task = task_of(loaded)
    data = data_of(args, loaded, args.input, task.head)
    read = lines_of(args.input)
    if read is None:
        read = read_rows(args.input, None, streaming=args.max_rows is not None)
    else:
        data = dataclasses.replace(data, text_column=TEXT_COLUMN)
    rows = list(itertools.islice(read, args.max_rows))
    items = items_of(type(task), rows, data, task.problem, args.input, labelled=False)
    full = [item for item in items if item is not None]
    found = iter(answers_to(task, loaded.model, loaded.params, full))
    answers = [{} if item is None else next(found) for item in items]
    for name, count in task.notes.items():
        if count:
            print(f"{count:,} {name}", file=sys.stderr)
    write_table(args.output, kind, with_answers([row for _, row in rows], answers))


def lines_of(source: str) -> "Iterable[Row] | None":
    """The lines of a plain text, without blank ones, as rows; None where the source has rows."""
    from jaxlm.data.files import find_files, read_lines
    from jaxlm.data.reading import is_plain_text

    if source.startswith("hf:") or not is_plain_text(files := find_files(source)):
        return None
    return (
        (f"{file} line {number}", {TEXT_COLUMN: line.rstrip("\r\n")})
        for file in files
        for number, line in enumerate(read_lines(file), 1)
        if line.strip()
    )


PREDICT = Verb("answers of a fine-tuned model to the rows of a file", declare, run)
