"""`jaxlm evaluate`: loss and scores of a model on text or labelled rows."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlm.cli.output import (
    Verb,
    check_output,
    declare_overwrite,
    declare_source,
    show,
    source_files,
)
from jaxlm.config import JaxlmError
from jaxlm.runtime import keep_compiled_programs

if TYPE_CHECKING:
    from jaxlm.artifact import Loaded

MOST_LABELS = 12  # the largest confusion matrix that is printed
MOST_CLASSES = 40  # the most classes that are printed
NO_CONFUSION = "--png draws a confusion matrix; this model gives no single labels"


def declare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    declare_source(parser)
    add(
        "--data",
        required=True,
        metavar="SOURCE",
        help="text or labelled rows, given like data.source",
    )
    declare_columns(parser)
    add("--label-column", metavar="NAME", help="column of the labels; default: the run's or task's")
    dialogues = "the rows are dialogues, scored on the replies; default: if the run's rows were"
    add("--dialogues", action=argparse.BooleanOptionalAction, help=dialogues)
    declare_beams(parser)
    add("--png", metavar="FILE", help="write a plot of the confusion matrix to this file")
    declare_overwrite(parser, "--png")
    add("--json", action="store_true", help="one JSON object")


# Options of how a source is read, which are fields of the data section.
READING = ("columns", "skip_unreadable", "hf_config", "hf_split")


def declare_beams(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    beams = "beams that an encoder-decoder searches with; default 1, or the model's own"
    add("--num-beams", type=positive, metavar="N", help=beams)
    add("--length-penalty", type=float, metavar="X", help="of beams; default 1, or the model's own")


def declare_columns(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--columns", type=names, metavar="A,B", help="names of a table's columns without a header")
    add("--text-column", metavar="NAME", help="column of the text; default: the run's or task's")
    add("--pair-column", metavar="NAME", help="column of a second text, or of the context")
    add("--max-rows", type=positive, metavar="N", help="read at most this many rows")
    skip = "pass over files that cannot be read, and tell which"
    add("--skip-unreadable", action="store_true", default=None, help=skip)
    add("--hf-config", metavar="NAME", help="configuration of a data set hf:NAME")
    add("--hf-split", metavar="NAME", help="split of a data set hf:NAME; default: train")


def positive(word: str) -> int:
    """An option's value as a count above 0."""
    if not word.isdecimal() or int(word) == 0:
        raise argparse.ArgumentTypeError(f"takes a whole number above 0, got {word!r}")
    return int(word)


def names(word: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(name.strip() for name in word.split(","))


def run(args: argparse.Namespace) -> None:
    from jaxlm.data.dataset import is_plain_text
    from jaxlm.loading import load
    from jaxlm.tasks.inference import evaluate_text, is_of_dialogues, writes_text

    if args.png:
        check_output(args.png, args.overwrite, source_files(args.data))
    keep_compiled_programs()
    loaded = load(args.source)
    if args.dialogues is None:
        args.dialogues = is_of_dialogues(loaded) and not is_plain_text(args.data)
    if args.dialogues or not writes_text(loaded):
        run_on_rows(args, loaded)
        return
    if args.png:
        raise JaxlmError(NO_CONFUSION)
    for option in ("label_column", "pair_column", "num_beams", "length_penalty"):
        if getattr(args, option) is not None:
            name = option.replace("_", "-")
            raise JaxlmError(
                f"--{name} is for rows of a task; a language model is scored on all text"
            )
    given = fields_given(args, "text_column", *READING)
    remarks: list[str] = []
    found = evaluate_text(loaded, args.data, max_documents=args.max_rows, remarks=remarks, **given)
    for remark in remarks:
        print(remark, file=sys.stderr)
    show(args, f"{args.source} on {args.data}", found)


def fields_given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options that are fields of the data section.

    JaxlmError for those of a Hub data set, where the source is none.
    """
    source = getattr(args, "data", None) or getattr(args, "input", None) or ""
    for name in sorted({"hf_config", "hf_split"}.intersection(names)):
        if getattr(args, name) is not None and "hf:" not in source:
            raise JaxlmError(f"--{name.replace('_', '-')} is for a data set hf:NAME, not {source}")
    return {name: getattr(args, name) for name in names}


def run_on_rows(args: argparse.Namespace, loaded: "Loaded") -> None:
    """Print scores on rows or dialogues, scores by class, and the confusion matrix if there is one.

    Skipped files are reported on stderr.
    """
    from jaxlm.tasks.inference import evaluate_rows, row_task_of, rows_like_the_run
    from jaxlm.tasks.metrics import confusion

    task, labels = row_task_of(loaded, args.dialogues), loaded.config.labels
    if args.png and task.label_pairs([], []) is None:
        raise JaxlmError(NO_CONFUSION)
    given = fields_given(args, "text_column", "pair_column", "label_column", *READING)
    data = rows_like_the_run(loaded, task, args.data, args.max_rows, **given)
    decoding = fields_given(args, "num_beams", "length_penalty")
    decoding = {name: value for name, value in decoding.items() if value is not None}
    evaluation = evaluate_rows(loaded, data, args.dialogues, **decoding)
    for remark in evaluation.remarks:
        print(remark, file=sys.stderr)
    shown: dict[str, Any] = {}
    for name, score in evaluation.scores.items():
        shown[name] = score
        if name in evaluation.signatures:
            shown[f"{name}_signature"] = evaluation.signatures[name]
    shown["rows"] = len(evaluation.items)
    shown |= evaluation.notes
    matrix = None
    if evaluation.by_class:
        shown |= {"by_class": evaluation.by_class}
    if evaluation.label_pairs is not None:
        matrix = confusion(*evaluation.label_pairs, labels)
        shown |= {"labels": list(labels), "confusion": matrix.tolist()}
    show(args, f"{args.source} on {args.data}", shown)
    if not args.json:
        show_classes(evaluation.by_class)
        if matrix is not None:
            show_confusion(shown)
    if args.png and matrix is not None:
        from jaxlm.training.plots import plot_confusion

        if missing := plot_confusion(Path(args.png), matrix, labels):
            print(missing, file=sys.stderr)


def show_classes(scores: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table of scores by class, the most frequent first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not scores:
        return
    table = Table("", "precision", "recall", "f1", "rows", title="by class")
    order = sorted(scores, key=lambda name: -scores[name]["rows"])
    for name in order[:MOST_CLASSES]:
        row = scores[name]
        values = (f"{row[key]:.4f}" for key in ("precision", "recall", "f1"))
        table.add_row(escape(name), *values, f"{row['rows']:,}")
    Console().print(table)
    if len(order) > MOST_CLASSES:
        print(f"{len(order) - MOST_CLASSES} more classes: --json lists all")


def show_confusion(values: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    labels = [escape(label) for label in values["labels"]]
    if len(labels) > MOST_LABELS:
        print(f"a confusion matrix of {len(labels)} labels: --png draws it, --json prints it")
        return
    counts = Table("is \\ said", *labels, title="confusion matrix")
    for label, row in zip(labels, values["confusion"], strict=True):
        counts.add_row(label, *map(str, row))
    Console().print(counts)


EVALUATE = Verb("loss and scores of a model on text or labelled rows", declare, run)
