"""`jaxlm evaluate`: loss and scores of a model on text or labelled rows."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlm.cli.output import Verb, show
from jaxlm.config import DataConfig, JaxlmError, ModelConfig
from jaxlm.config.options import COLUMNS, TASK_COLUMNS, TEXT_COLUMN
from jaxlm.files import check_parent
from jaxlm.runtime import keep_compiled_programs

if TYPE_CHECKING:
    import numpy as np

    from jaxlm.artifact import Loaded
    from jaxlm.tasks.inference import Evaluation


def declare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help="a run directory, a checkpoint or a Hugging Face model")
    add("--data", required=True, metavar="SOURCE", help="text or labelled rows, as data.source")
    declare_columns(parser)
    add("--label-column", metavar="NAME", help="column of the labels; default: the run's or task's")
    add("--dialogues", action="store_true", help="the rows are dialogues: the loss of the replies")
    add("--png", metavar="FILE", help="draw the confusion matrix into this file")
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


def data_of(args: argparse.Namespace, loaded: "Loaded", source: str, task: str) -> DataConfig:
    """Which rows to read: columns from the options, else from the model's run, else the task's."""
    usual = TASK_COLUMNS.get(task, (TEXT_COLUMN, None, None))
    columns: dict[str, Any] = dict(zip(COLUMNS, usual, strict=True))
    normalize = DataConfig.normalize
    run = loaded.run_config
    if run is not None:
        normalize = run.data.normalize
        if run.finetune.task == task:
            columns = {name: getattr(run.data, name) for name in COLUMNS}
    columns |= {name: told for name in COLUMNS if (told := getattr(args, name, None))}
    return DataConfig(source=source, max_documents=args.max_rows, normalize=normalize, **columns)


def run(args: argparse.Namespace) -> None:
    from jaxlm.loading import load
    from jaxlm.tasks.inference import evaluate_rows
    from jaxlm.training.evaluating import evaluate_text

    if args.png:
        check_parent(args.png)
    keep_compiled_programs()
    loaded = load(args.source)
    config = loaded.config
    title, head = f"{args.source} on {args.data}", config.head
    if args.png and not has_confusion(config):
        raise JaxlmError("--png draws a confusion matrix; this model gives no single labels")
    if args.dialogues and (config.architecture, head) != ("decoder", "lm"):
        raise JaxlmError(
            f"--dialogues scores a language model's replies; {args.source} is a model with the "
            f"architecture {config.architecture} and the head {head}"
        )
    if head in ("lm", "pretraining") and not args.dialogues:
        for option in ("label_column", "pair_column"):
            if getattr(args, option) is not None:
                name = option.replace("_", "-")
                raise JaxlmError(f"--{name} is for rows of a task; a language model takes all text")
        column = args.text_column or TEXT_COLUMN
        found = evaluate_text(loaded, args.data, column, max_documents=args.max_rows)
        show(args, title, found)
        return
    task = "chat" if args.dialogues else head
    data = data_of(args, loaded, args.data, task)
    evaluation = evaluate_rows(loaded, data, args.dialogues)
    matrix = confusion_of(loaded, evaluation)
    shown: dict[str, Any] = {**evaluation.scores, "rows": len(evaluation.items)}
    shown |= evaluation.notes
    if matrix is not None:
        shown |= {"labels": list(config.labels), "confusion": matrix.tolist()}
    show(args, title, shown)
    if matrix is not None and not args.json:
        show_confusion(shown)
    if args.png and matrix is not None:
        from jaxlm.training.plots import plot_confusion

        plot_confusion(Path(args.png), matrix, config.labels)


def has_confusion(config: ModelConfig) -> bool:
    """Whether each text or each word has exactly one label."""
    if config.head == "sequence_classification":
        return config.problem == "single_label"
    return config.head == "token_classification"


def confusion_of(loaded: "Loaded", evaluation: "Evaluation") -> "np.ndarray | None":
    """Counts (C, C) of correct labels in rows, predicted ones in columns; None without labels."""
    from jaxlm.tasks.metrics import confusion

    config = loaded.config
    if not has_confusion(config):
        return None
    if config.head == "token_classification":
        truth = [tag for item in evaluation.items for tag in item.label]
        found = [tag for answer in evaluation.answers for tag in answer["tags"]]
    else:
        truth = [item.label for item in evaluation.items]
        found = [answer["label"] for answer in evaluation.answers]
    return confusion(truth, found, config.labels)


def show_confusion(values: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    counts = Table("is \\ said", *values["labels"], title="confusion matrix")
    for label, row in zip(values["labels"], values["confusion"], strict=True):
        counts.add_row(label, *map(str, row))
    Console().print(counts)


EVALUATE = Verb("loss and scores of a model on text or labelled rows", declare, run)
