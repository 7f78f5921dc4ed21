"""`jaxlm evaluate` and `jaxlm predict`: how good a model is, and what it says of a file's rows."""

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlm.cli.showing import show
from jaxlm.cli.verb import Verb
from jaxlm.config import DataConfig, JaxlmError
from jaxlm.config.options import TASK_COLUMNS, TEXT_COLUMN

if TYPE_CHECKING:
    import numpy as np

    from jaxlm.artifact import Loaded
    from jaxlm.tasks.inference import Evaluation


class OutputError(JaxlmError):
    """A file that cannot be written."""


def declare_evaluate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help="a run directory, a checkpoint or a Hugging Face model")
    add("--data", required=True, metavar="SOURCE", help="text or labelled rows, as data.source")
    declare_columns(parser)
    add("--label-column", metavar="NAME", help="column of the right labels; default: the task's")
    add("--dialogues", action="store_true", help="the rows are dialogues: the loss of the replies")
    add("--png", metavar="FILE", help="draw the confusion matrix into this file")
    add("--json", action="store_true", help="one JSON object")


def declare_predict(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help="a run directory, a checkpoint or a Hugging Face model")
    add("--input", required=True, metavar="FILE", help="rows (csv, tsv, jsonl, parquet), or a .txt")
    help_output = "a .jsonl, .csv or .tsv to write; default: JSON lines on the screen"
    add("--output", metavar="FILE", help=help_output)
    declare_columns(parser)


def declare_columns(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--text-column", metavar="NAME", help="column of the text; default: the task's usual one")
    add("--pair-column", metavar="NAME", help="column of a second text, or of the context")
    add("--max-rows", type=int, metavar="N", help="take no more rows than this")


def data_of(args: argparse.Namespace, source: str, task: str, label: str | None) -> DataConfig:
    text, pair, usual = TASK_COLUMNS.get(task, (TEXT_COLUMN, None, None))
    return DataConfig(
        source=source,
        text_column=args.text_column or text,
        pair_column=args.pair_column or pair,
        label_column=label or usual,
        max_documents=args.max_rows,
    )


def run_evaluate(args: argparse.Namespace) -> None:
    from jaxlm.loading import load
    from jaxlm.tasks.inference import evaluate_rows
    from jaxlm.training.evaluating import evaluate_text
    from jaxlm.training.loop import keep_compiled_programs

    keep_compiled_programs()
    loaded = load(args.source)
    title, head = f"{args.source} on {args.data}", loaded.config.head
    if head in ("lm", "pretraining") and not args.dialogues:
        if args.png:
            raise OutputError("--png draws a confusion matrix, which a language model has none of")
        show(args, title, evaluate_text(loaded, args.data, args.text_column or TEXT_COLUMN))
        return
    task = "chat" if args.dialogues else head
    data = data_of(args, args.data, task, args.label_column)
    evaluation = evaluate_rows(loaded, data, args.dialogues)
    matrix = confusion_of(loaded, evaluation)
    shown: dict[str, Any] = {**evaluation.scores, "rows": len(evaluation.items)}
    shown |= evaluation.notes
    if matrix is not None:
        shown |= {"labels": list(loaded.config.labels), "confusion": matrix.tolist()}
    show(args, title, shown)
    if matrix is not None and not args.json:
        show_confusion(shown)
    if args.png:
        if matrix is None:
            raise OutputError("--png draws a confusion matrix; this task has none")
        from jaxlm.training.plots import plot_confusion

        plot_confusion(Path(args.png), matrix, loaded.config.labels)


def confusion_of(loaded: "Loaded", evaluation: "Evaluation") -> "np.ndarray | None":
    """Right labels (rows) against answers (columns), where an item or a word has one label."""
    from jaxlm.tasks.metrics import confusion

    config = loaded.config
    if config.head == "token_classification":
        truth = [tag for item in evaluation.items for tag in item.label]
        found = [tag for answer in evaluation.answers for tag in answer["tags"]]
    elif config.head == "sequence_classification" and config.problem == "single_label":
        truth = [item.label for item in evaluation.items]
        found = [answer["label"] for answer in evaluation.answers]
    else:
        return None
    return confusion(truth, found, config.labels)


def show_confusion(values: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    counts = Table("is \\ said", *values["labels"], title="confusion matrix")
    for label, row in zip(values["labels"], values["confusion"], strict=True):
        counts.add_row(label, *map(str, row))
    Console().print(counts)


def run_predict(args: argparse.Namespace) -> None:
    from jaxlm.data.rows import read_rows
    from jaxlm.loading import load
    from jaxlm.tasks.inference import predict, predict_rows, task_of
    from jaxlm.training.loop import keep_compiled_programs

    keep_compiled_programs()
    kind = Path(args.output).suffix.lower() if args.output else ".jsonl"
    if kind not in (".jsonl", ".csv", ".tsv"):
        raise OutputError(f"--output must end in .jsonl, .csv or .tsv, got {args.output}")
    loaded = load(args.source)
    head = task_of(loaded).head
    if Path(args.input).suffix.lower() == ".txt":
        texts = [line for line in Path(args.input).read_text("utf-8").split("\n") if line.strip()]
        texts = texts[: args.max_rows]
        answers, rows = predict(loaded, texts), [{"text": text} for text in texts]
    else:
        data = data_of(args, args.input, head, None)
        answers = predict_rows(loaded, data)
        columns = [column for column in (data.text_column, data.pair_column) if column]
        rows = [row for _, row in read_rows(args.input, columns)][: len(answers)]
    write_table(args.output, kind, [row | a for row, a in zip(rows, answers, strict=True)])


def write_table(path: str | None, kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as JSON lines, or with one column a field, whole or not at all."""
    text = io.StringIO(newline="")
    if kind == ".jsonl":
        text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        names = list(dict.fromkeys(name for row in rows for name in row))
        flat = [
            {
                name: json.dumps(value, ensure_ascii=False)
                if isinstance(value, dict | list)
                else value
                for name, value in row.items()
            }
            for row in rows
        ]
        writer = csv.DictWriter(text, names, delimiter="," if kind == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(flat)
    if path is None:
        sys.stdout.write(text.getvalue())
        return
    temporary = Path(f"{path}.tmp")
    try:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    print(f"{path}: {len(rows)} rows")


EVALUATE = Verb(
    "loss and scores of a model on text or labelled rows", declare_evaluate, run_evaluate
)
PREDICT = Verb("what a fine-tuned model says of a file's rows", declare_predict, run_predict)
