"""Labelled rows read, counted and split: what fine-tuning learns from, and is measured on."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxlm.config import Config, DataConfig
from jaxlm.data import clean
from jaxlm.data.errors import DataError
from jaxlm.data.rows import read_rows
from jaxlm.tasks.examples import Item
from jaxlm.tasks.task import Task, sorted_labels


@dataclass(frozen=True)
class RowSet:
    """The items of each split, the labels by name, and what was left out, in words."""

    train: list[Item]
    val: list[Item]
    test: list[Item]
    labels: tuple[str, ...]
    notes: Counter[str]

    @property
    def fingerprint(self) -> str:
        """A hash of all items as they were split."""
        content = repr([[item[1:] for item in part] for part in (self.train, self.val, self.test)])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def read_items(
    kind: type[Task],
    data: DataConfig,
    problem: str,
    notes: Counter[str],
    *,
    source: str | None = None,
    labelled: bool = True,
) -> list[Item | None]:
    """One entry a row of `source`, else of `data.source`: its item, or None if it has no text.

    DataError where a row is not as it must be, or no row has text.
    """
    columns = [data.text_column, data.pair_column, data.label_column if labelled else None]
    rows = read_rows(
        source or data.source,
        [column for column in columns if column is not None],
        data.hf_config,
        data.hf_val_split if source and source == data.val_source else data.hf_split,
        streaming=data.max_documents is not None,
    )
    items = []
    for where, row in rows:
        if len(items) == data.max_documents:
            break
        cleaned = {
            name: clean(value, data.normalize) if isinstance(value, str) else value
            for name, value in row.items()
        }
        items.append(kind.read(where, cleaned, data, problem, labelled))
    if not any(items):
        raise DataError(f"{source or data.source} has no row with text")
    if empty := items.count(None):
        notes["rows without text, left out"] += empty
    return items


def read_rowset(kind: type[Task], config: Config, known: Sequence[str] = ()) -> RowSet:
    """Read and split what the config's data section names.

    The order is drawn by the seed, so that every class has its share in each split. `known` are
    the labels of the model to start from, kept if the rows have no others. DataError on a mistake
    in the rows: a missing column or label, or one that only validation rows have.
    """
    data, finetune, problem = config.data, config.finetune, config.model.problem
    notes: Counter[str] = Counter()
    items = [item for item in read_items(kind, data, problem, notes) if item is not None]
    items = [items[i] for i in fair_order(kind, items, config.run.seed)]
    tests = round(len(items) * data.test_fraction)
    test, rest = items[:tests], items[tests:]
    if data.val_source is not None:
        read = read_items(kind, data, problem, notes, source=data.val_source)
        val, train = [item for item in read if item is not None], rest
    else:
        vals = round(len(items) * data.val_fraction)
        val, train = rest[:vals], rest[vals:]
    # Items of one group, such as questions about one context, stand on one side of a split only.
    train = without_groups(kind, train, [*val, *test])
    val = without_groups(kind, val, test)
    train = train[: finetune.train_rows]
    if not train:
        raise DataError(f"{data.source} leaves no row to train on; give more rows")
    labels = config.model.labels or label_names(kind, train, config)
    if known and set(labels) <= set(known):
        labels = tuple(known)
    for part, word in ((train, "model.labels"), (val, "the training rows"), (test, "them")):
        refuse_unknown(kind, part, labels, word)
    return RowSet(train, val, test, labels, notes)


def label_names(kind: type[Task], train: Sequence[Item], config: Config) -> tuple[str, ...]:
    """The labels that the training rows have, in order; a number's is its column's name."""
    if not kind.head.endswith("_classification"):
        return ()
    if config.model.problem == "regression":
        return (str(config.data.label_column),)
    labels = sorted_labels({label for item in train for label in kind.labels_in(item)})
    if len(labels) < 2 and config.model.problem == "single_label":
        raise DataError(
            f"{config.data.source} has only the label {', '.join(labels)!r} in its training rows; "
            "a classifier needs two"
        )
    return labels


def refuse_unknown(
    kind: type[Task], items: Sequence[Item], labels: Sequence[str], place: str
) -> None:
    for item in items:
        for label in kind.labels_in(item):
            if label not in labels:
                raise DataError(
                    f"{item.where} has the label {label!r}, which is in none of {place}: "
                    f"known are {', '.join(labels[:20])}"
                )


def fair_order(kind: type[Task], items: Sequence[Item], seed: int) -> list[int]:
    """A random order of which every beginning holds each class by its share.

    Items of a group stay together.
    """
    random = np.random.default_rng(seed)
    members = defaultdict(list)
    keys = np.empty(len(items))
    for i in random.permutation(len(items)).tolist():
        labels = tuple(kind.labels_in(items[i]))
        # Of several labels, as of tags, every combination would be a class of its own.
        members[labels if len(labels) == 1 else None].append(i)
    for places in members.values():
        keys[places] = (np.arange(len(places)) + random.random()) / len(places)
    first: dict[object, float] = {}
    for i, item in enumerate(items):
        if (group := kind.group(item)) is not None:
            keys[i] = first.setdefault(group, keys[i])
    return np.argsort(keys, kind="stable").tolist()


def without_groups(kind: type[Task], items: Sequence[Item], others: Sequence[Item]) -> list[Item]:
    taken = {kind.group(item) for item in others} - {None}
    return [item for item in items if kind.group(item) not in taken]
