"""`jaxlm predict`: answers of a fine-tuned model to the rows of a file."""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.cli.evaluate import READING, declare_columns, fields_given
from jaxlm.cli.output import (
    Verb,
    check_output,
    declare_overwrite,
    declare_source,
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
    declare_source(parser)
    help_input = "rows (csv, tsv, jsonl, parquet), or a .txt with one text per line"
    add("--input", metavar="FILE", help=help_input)
    add("--text", metavar="TEXT", help="a single text instead of a file")
    add("--pair", metavar="TEXT", help="with --text: a second text, such as the context")
    help_output = (
        "a .jsonl, .csv or .tsv file to write; default: print JSON lines; an answer field with the "
        "name of an input column is written as predicted_NAME"
    )
    add("--output", metavar="FILE", help=help_output)
    declare_overwrite(parser, "--output; not needed for a table that jaxlm wrote")
    declare_columns(parser)


def run(args: argparse.Namespace) -> None:
    from jaxlm.data.rows import read_rows
    from jaxlm.loading import load
    from jaxlm.tasks.inference import row_task_of, rows_like_the_run
    from jaxlm.tasks.labelled_rows import items_of

    kind = Path(args.output).suffix.lower() if args.output else ".jsonl"
    if kind not in (".jsonl", ".csv", ".tsv"):
        raise JaxlmError(f"--output must end in .jsonl, .csv or .tsv, got {args.output}")
    if (args.input is None) == (args.text is None):
        raise JaxlmError("predict takes either --input FILE or --text TEXT")
    if args.text is None and args.pair is not None:
        raise JaxlmError("--pair goes with --text; for a file, --pair-column names the column")
    if args.output:
        inputs = [] if args.input is None else source_files(args.input)
        check_output(args.output, args.overwrite, inputs)
    keep_compiled_programs()
    loaded = load(args.source)
    task = row_task_of(loaded)
    if args.text is not None:
        text = args.text if args.pair is None else (args.text, args.pair)
        row = {"text": args.text} | ({} if args.pair is None else {"pair": args.pair})
        answers = task.predict(loaded, [text])
        print_notes(task.notes, task.limit)
        write_table(args.output, kind, with_answers([row], answers))
        return
    source = str(args.input)
    given = fields_given(args, "text_column", "pair_column", *READING)
    data = rows_like_the_run(loaded, task, source, args.max_rows, **given)
    skip, remarks = data.skip_unreadable, list[str]()
    read = lines_of(source, skip, remarks)
    if read is None:
        hub, streaming = (data.hf_config, data.hf_split), args.max_rows is not None
        read = read_rows(source, None, *hub, streaming, skip, remarks, header=data.columns)
    else:
        data = dataclasses.replace(data, text_column="text")
    rows = list(itertools.islice(read, args.max_rows))
    for remark in remarks:
        print(remark, file=sys.stderr)
    items = items_of(type(task), rows, data, task.problem, source, labelled=False)
    full = [item for item in items if item is not None]
    found = iter(task.answers_to(loaded.model, loaded.params, full))
    answers = [{} if item is None else next(found) for item in items]
    print_notes(task.notes, task.limit)
    write_table(args.output, kind, with_answers([row for _, row in rows], answers))


def print_notes(notes: Mapping[str, int], limit: int) -> None:
    """Print on stderr what was cut or left out."""
    from jaxlm.tasks.notes import notes_in_words

    for phrase in notes_in_words(notes, limit):
        print(phrase, file=sys.stderr)


def lines_of(source: str, skip: bool, remarks: list[str]) -> "Iterable[Record] | None":
    """The lines of plain text files as rows, without blank ones; None for a source of rows.

    A Markdown file or web page is one text. With `skip` a file that cannot be read is passed over
    with a remark.
    """
    from jaxlm.data.dataset import is_plain_text
    from jaxlm.data.sources import find_files, kind_of
    from jaxlm.data.text_files import read_document, read_each, read_lines

    if not is_plain_text(source):
        return None
    files = find_files(source)
    whole = any(kind_of(file) != ".txt" for file in files)

    def texts(file: Path) -> "Iterator[Record]":
        if whole:
            yield str(file), {"text": read_document(file)}
            return
        for number, line in enumerate(read_lines(file), 1):
            if line.strip():
                yield f"{file} line {number}", {"text": line.rstrip("\r\n")}

    return read_each(files, texts, skip, remarks)


PREDICT = Verb("answers of a fine-tuned model to the rows of a file", declare, run)
