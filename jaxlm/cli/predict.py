"""`jaxlm predict`: a fine-tuned model's answers to the rows of a file."""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.cli.evaluate import declare_columns
from jaxlm.cli.output import (
    Verb,
    check_output,
    declare_overwrite,
    source_files,
    with_answers,
    write_table,
)
from jaxlm.config import JaxlmError
from jaxlm.runtime import keep_compiled_programs

if TYPE_CHECKING:
    from jaxlm.data.rows import Record


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
    declare_overwrite(parser, "--output; needless for a table that this wrote")
    declare_columns(parser)


def run(args: argparse.Namespace) -> None:
    from jaxlm.data.rows import read_rows
    from jaxlm.loading import load
    from jaxlm.tasks.examples import notes_in_words
    from jaxlm.tasks.inference import row_task_of, rows_like_the_run
    from jaxlm.tasks.labelled_rows import items_of

    kind = Path(args.output).suffix.lower() if args.output else ".jsonl"
    if kind not in (".jsonl", ".csv", ".tsv"):
        raise JaxlmError(f"--output must end in .jsonl, .csv or .tsv, got {args.output}")
    if args.output:
        check_output(args.output, args.overwrite, source_files(args.input))
    keep_compiled_programs()
    loaded = load(args.source)
    task = row_task_of(loaded)
    columns = {n: getattr(args, n) for n in ("text_column", "pair_column")}
    data = rows_like_the_run(loaded, task, args.input, args.max_rows, **columns)
    read = lines_of(args.input)
    if read is None:
        read = read_rows(args.input, None, streaming=args.max_rows is not None)
    else:
        data = dataclasses.replace(data, text_column="text")
    rows = list(itertools.islice(read, args.max_rows))
    items = items_of(type(task), rows, data, task.problem, args.input, labelled=False)
    full = [item for item in items if item is not None]
    found = iter(task.answers_to(loaded.model, loaded.params, full))
    answers = [{} if item is None else next(found) for item in items]
    for phrase in notes_in_words(task.notes, task.limit):
        print(phrase, file=sys.stderr)
    write_table(args.output, kind, with_answers([row for _, row in rows], answers))


def lines_of(source: str) -> "Iterable[Record] | None":
    """The lines of a plain text, without blank ones, as rows; None where the source has rows."""
    from jaxlm.data.dataset import is_plain_text
    from jaxlm.data.sources import find_files, read_lines

    if source.startswith("hf:") or not is_plain_text(files := find_files(source)):
        return None
    return (
        (f"{file} line {number}", {"text": line.rstrip("\r\n")})
        for file in files
        for number, line in enumerate(read_lines(file), 1)
        if line.strip()
    )


PREDICT = Verb("answers of a fine-tuned model to the rows of a file", declare, run)
