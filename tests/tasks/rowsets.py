"""Rows of a table, written, read and split as a run does it."""

from jaxlm.config import DataConfig, build_config
from jaxlm.tasks import TASKS
from jaxlm.tasks.labelled_rows import read_splits


def config(tmp_path, rows, header="label\ttext", task="sequence_classification", **sections):
    source = tmp_path / "rows.tsv"
    source.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    data = {"source": str(source), "val_fraction": 0.1} | sections.pop("data", {})
    options = {"name": task} | sections.pop("task_options", {})
    found = build_config({"data": data, "task": options, **sections})
    return found.replace({"data": TASKS[task].missing_columns(found.data)})


def rowset(*args, task="sequence_classification", known=(), **keywords):
    return read_splits(TASKS[task], config(*args, task=task, **keywords), known)


def usual(task):
    return TASKS[task].missing_columns(DataConfig())


def rows_of(**counts):
    return [f"{label}\ttext {label}{i}" for label, n in counts.items() for i in range(n)]
