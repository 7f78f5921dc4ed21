"""`jaxlm translate`: the targets that an encoder-decoder writes for source texts."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlm.cli.evaluate import declare_beams, fields_given, names, positive
from jaxlm.cli.output import (
    Verb,
    check_output,
    declare_overwrite,
    with_answers,
    write_lines,
    write_table,
)
from jaxlm.config import JaxlmError
from jaxlm.runtime import keep_compiled_programs

if TYPE_CHECKING:
    from jaxlm.artifact import Loaded

TABLES_WRITTEN = (".jsonl", ".csv", ".tsv")
PART = 256  # texts between two moves of the progress bar


def declare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help="a run directory, a checkpoint or a Hugging Face model")
    help_input = "a text a line, or rows (csv, tsv, jsonl, parquet)"
    add("--input", metavar="FILE", help=help_input)
    add(
        "--text", action="append", default=[], metavar="TEXT", help="in place of a file; repeatable"
    )
    help_output = (
        "where to write: rows to a .jsonl, .csv or .tsv, to any other file a translation a line; "
        "default: the screen"
    )
    add("--output", metavar="FILE", help=help_output)
    declare_overwrite(parser, "--output; needless for one that this wrote")
    declare_beams(parser)
    add("--n-best", type=positive, metavar="N", help="of each text so many, with their scores")
    add("--max-new-tokens", type=positive, metavar="N", help="at most; default 50 over the source")
    add("--text-column", metavar="NAME", help="column of the source; default: the run's, or source")
    add("--columns", type=names, metavar="A,B", help="names of a table's columns without a header")
    add("--max-rows", type=positive, metavar="N", help="take no more rows than this")
    add("--json", action="store_true", help="one JSON object a text on the screen")


def run(args: argparse.Namespace) -> None:
    from jaxlm.loading import load

    kind = Path(args.output).suffix.lower() if args.output else ".jsonl" if args.json else ""
    rows_wanted = kind in TABLES_WRITTEN
    if (args.input is None) == (not args.text):
        raise JaxlmError("translate takes either --input FILE or --text TEXT")
    if args.json and args.output:
        raise JaxlmError("--json is for the screen; an --output that ends in .jsonl has the same")
    if args.n_best is not None and kind != ".jsonl":
        raise JaxlmError("--n-best takes --json, or an --output that ends in .jsonl")
    if args.output:
        check_output(args.output, args.overwrite, [Path(args.input)] if args.input else [])
    keep_compiled_programs()
    loaded = load(args.source)
    rows, texts = read_input(args, loaded)
    answers = answers_to(args, loaded, texts)
    if rows_wanted:
        write_table(args.output, kind, with_answers(rows, answers))
    else:
        lines = [" ".join(answer["translation"].splitlines()) for answer in answers]
        write_lines(args.output, lines)


def read_input(
    args: argparse.Namespace, loaded: "Loaded"
) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of the input, and the source text of each; a line without text stays one."""
    from itertools import islice

    from jaxlm.data import clean
    from jaxlm.data.rows import read_rows
    from jaxlm.data.sources import TABLES, DataError, kind_of
    from jaxlm.data.text_files import read_lines
    from jaxlm.tasks.inference import row_task_of, rows_like_the_run
    from jaxlm.tasks.labelled_rows import items_of

    task = row_task_of(loaded)
    given = fields_given(args, "text_column", "columns")
    data = rows_like_the_run(loaded, task, args.input or "-", args.max_rows, **given)
    if args.input is None or kind_of(path := Path(args.input)) not in TABLES:
        if args.input is not None and not path.is_file():
            raise DataError(f"there is no file {args.input}")
        lines = args.text if args.input is None else read_lines(path)
        texts = [
            clean(line.rstrip("\r\n"), data.normalize) for line in islice(lines, args.max_rows)
        ]
        return [{"source": text} for text in texts], texts
    read = list(islice(read_rows(str(args.input), None, header=data.columns), args.max_rows))
    items = items_of(type(task), read, data, task.problem, str(args.input), labelled=False)
    return [row for _, row in read], ["" if item is None else item.content[0] for item in items]


def answers_to(
    args: argparse.Namespace, loaded: "Loaded", texts: Sequence[str]
) -> list[dict[str, Any]]:
    """The translation of each text, or the best ones with their scores; none of a blank text."""
    from jaxlm.generation import translate

    options = fields_given(args, "max_new_tokens", "num_beams", "length_penalty", "n_best")
    full = [i for i, text in enumerate(texts) if text.strip()]
    empty: Any = [] if args.n_best else ""
    found: list[Any] = [empty] * len(texts)
    for part in in_parts(full):
        written = translate(loaded, [texts[i] for i in part], **options)
        for i, answer in zip(part, written, strict=True):
            found[i] = answer
    if args.n_best is None:
        return [{"translation": text} for text in found]
    return [
        {"translations": [{"text": text, "score": score} for text, score in best]} for best in found
    ]


def in_parts(places: Sequence[int]) -> Iterator[Sequence[int]]:
    """The places, so many at a time, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    shown = console.is_terminal and len(places) > PART
    with Progress(console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task("translating", total=len(places))
        for first in range(0, len(places), PART):
            yield places[first : first + PART]
            bar.advance(task, PART)


TRANSLATE = Verb("what an encoder-decoder writes for each text", declare, run)
