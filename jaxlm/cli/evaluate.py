"""`jaxlm evaluate`: loss and scores of a model on text or labelled rows."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlm.cli.output import Verb, check_output, declare_overwrite, show, source_files
from jaxlm.config import JaxlmError
from jaxlm.runtime import keep_compiled_programs

if TYPE_CHECKING:
    from jaxlm.artifact import Loaded

NO_CONFUSION = "--png draws a confusion matrix; this model gives no single labels"


def declare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help="a run directory, a checkpoint or a Hugging Face model")
    add("--data", required=True, metavar="SOURCE", help="text or labelled rows, as data.source")
    declare_columns(parser)
    add("--label-column", metavar="NAME", help="column of the labels; default: the run's or task's")
    add("--dialogues", action="store_true", help="the rows are dialogues: the loss of the replies")
    add("--png", metavar="FILE", help="draw the confusion matrix into this file")
    declare_overwrite(parser, "--png")
    add("--json", action="store_true", help="one JSON object")


def declare_columns(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--text-column", metavar="NAME", help="column of the text; default: the run's or task's")
    add("--pair-column", metavar="NAME", help="column of a second text, or of the context")
    add("--max-rows", type=positive, metavar="N", help="take no more rows than this")


def positive(word: str) -> int:
    """A count in an option."""
    if not word.isdecimal() or int(word) == 0:
        raise argparse.ArgumentTypeError(f"takes a whole number above 0, got {word!r}")
    return int(word)


def run(args: argparse.Namespace) -> None:
    from jaxlm.loading import load
    from jaxlm.tasks.inference import evaluate_text, writes_text

    if args.png:
        check_output(args.png, args.overwrite, source_files(args.data))
    keep_compiled_programs()
    loaded = load(args.source)
    if args.dialogues or not writes_text(loaded):
        run_on_rows(args, loaded)
        return
    if args.png:
        raise JaxlmError(NO_CONFUSION)
    for option in ("label_column", "pair_column"):
        if getattr(args, option) is not None:
            name = option.replace("_", "-")
            raise JaxlmError(f"--{name} is for rows of a task; a language model takes all text")
    column = args.text_column or "text"
    found = evaluate_text(loaded, args.data, column, max_documents=args.max_rows)
    show(args, f"{args.source} on {args.data}", found)


def run_on_rows(args: argparse.Namespace, loaded: "Loaded") -> None:
    """Show the scores on rows or dialogues, and the confusion matrix where there is one."""
    from jaxlm.tasks.inference import evaluate_rows, row_task_of, rows_like_the_run
    from jaxlm.tasks.metrics import confusion

    task, labels = row_task_of(loaded, args.dialogues), loaded.config.labels
    if args.png and task.label_pairs([], []) is None:
        raise JaxlmError(NO_CONFUSION)
    columns = {n: getattr(args, n) for n in ("text_column", "pair_column", "label_column")}
    data = rows_like_the_run(loaded, task, args.data, args.max_rows, **columns)
    evaluation = evaluate_rows(loaded, data, args.dialogues)
    shown: dict[str, Any] = {**evaluation.scores, "rows": len(evaluation.items)}
    shown |= evaluation.notes
    title = f"{args.source} on {args.data}"
    if evaluation.label_pairs is None:
        show(args, title, shown)
        return
    matrix = confusion(*evaluation.label_pairs, labels)
    shown |= {"labels": list(labels), "confusion": matrix.tolist()}
    show(args, title, shown)
    if not args.json:
        show_confusion(shown)
    if args.png:
        from jaxlm.training.plots import plot_confusion

        plot_confusion(Path(args.png), matrix, labels)


def show_confusion(values: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    counts = Table("is \\ said", *values["labels"], title="confusion matrix")
    for label, row in zip(values["labels"], values["confusion"], strict=True):
        counts.add_row(label, *map(str, row))
    Console().print(counts)


EVALUATE = Verb("loss and scores of a model on text or labelled rows", declare, run)
