"""`jaxlm predict`: a fine-tuned model's answers to the rows of a file."""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.cli.evaluate import declare_columns, fields_given
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
    add("--input", metavar="FILE", help=help_input)
    add("--text", metavar="TEXT", help="one text, in place of a file")
    add("--pair", metavar="TEXT", help="with --text: a second text, such as the context")
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
    from jaxlm.tasks.inference import row_task_of, rows_like_the_run
    from jaxlm.tasks.labelled_rows import items_of

    kind = Path(args.output).suffix.lower() if args.output else ".jsonl"
    if kind not in (".jsonl", ".csv", ".tsv"):
        raise JaxlmError(f"--output must end in .jsonl, .csv or .tsv, got {args.output}")
    if (args.input is None) == (args.text is None):
        raise JaxlmError("predict takes either --input FILE or --text TEXT")
    if args.text is None and args.pair is not None:
        raise JaxlmError("--pair goes with --text; of a file --pair-column names the column")
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
        tell(task.notes, task.limit)
        write_table(args.output, kind, with_answers([row], answers))
        return
    source = str(args.input)
    names = ("text_column", "pair_column", "columns", "hf_config", "hf_split")
    given = fields_given(args, *names)
    data = rows_like_the_run(loaded, task, source, args.max_rows, **given)
    read = lines_of(source)
    if read is None:
        hub, streaming = (data.hf_config, data.hf_split), args.max_rows is not None
        read = read_rows(source, None, *hub, streaming=streaming, header=data.columns)
    else:
        data = dataclasses.replace(data, text_column="text")
    rows = list(itertools.islice(read, args.max_rows))
    items = items_of(type(task), rows, data, task.problem, source, labelled=False)
    full = [item for item in items if item is not None]
    found = iter(task.answers_to(loaded.model, loaded.params, full))
    answers = [{} if item is None else next(found) for item in items]
    tell(task.notes, task.limit)
    write_table(args.output, kind, with_answers([row for _, row in rows], answers))


def tell(notes: Mapping[str, int], limit: int) -> None:
    """Say on stderr what was cut or left out."""
    from jaxlm.tasks.examples import notes_in_words

    for phrase in notes_in_words(notes, limit):
        print(phrase, file=sys.stderr)


def lines_of(source: str) -> "Iterable[Record] | None":
    """The lines of a plain text, without blank ones, as rows; None where the source has rows.

    Of Markdown and web pages each is one text.
    """
    from jaxlm.data.dataset import is_plain_text
    from jaxlm.data.sources import find_files, kind_of, read_document, read_lines

    if not is_plain_text(source):
        return None
    files = find_files(source)
    if any(kind_of(file) != ".txt" for file in files):
        return ((str(file), {"text": read_document(file)}) for file in files)
    return (
        (f"{file} line {number}", {"text": line.rstrip("\r\n")})
        for file in files
        for number, line in enumerate(read_lines(file), 1)
        if line.strip()
    )


PREDICT = Verb("answers of a fine-tuned model to the rows of a file", declare, run)
