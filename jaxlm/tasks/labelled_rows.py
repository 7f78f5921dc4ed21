"""Labelled rows: read, checked, and split for training, validation and test."""

import ast
import dataclasses
import hashlib
import io
import itertools
import json
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxlm.config import Config, DataConfig
from jaxlm.data import clean
from jaxlm.data.rows import Record, read_rows
from jaxlm.data.sources import WITHOUT_FILES, DataError, find_files, is_side_by_side, kind_of
from jaxlm.tasks.examples import COLUMNS, Item, RowReader
from jaxlm.tasks.fields import sorted_labels


@dataclass(frozen=True)
class RowSplits:
    """The items of each split, the label names, and counts of what was left out (see NOTES)."""

    train: list[Item]
    val: list[Item]
    test: list[Item]
    labels: tuple[str, ...]
    notes: Counter[str]
    remarks: tuple[str, ...] = ()  # which files were read and skipped

    @property
    def fingerprint(self) -> str:
        """A hash of the items of each split and of the labels in order."""
        splits = (self.train, self.val, self.test)
        parts = [[(*item[1:3], *item.given) for item in part] for part in splits]
        content = repr([self.labels, *parts])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def read_items(
    kind: type[RowReader],
    data: DataConfig,
    problem: str,
    notes: Counter[str],
    *,
    source: str | None = None,
    labelled: bool = True,
    remarks: list[str] | None = None,
) -> list[Item]:
    """The items of the rows of `source`, else of `data.source`, that have a text and a label.

    Rows left out are counted in `notes`; skipped files are added to `remarks`.

    Raises: DataError for a malformed row, or where no row is left.
    """
    columns = [getattr(data, name) for name in COLUMNS if labelled or name != "label_column"]
    rows = read_rows(
        source or data.source,
        [*(column for column in columns if column is not None), *kind.optional],
        data.hf_config,
        data.hf_val_split if source and source == data.val_source else data.hf_split,
        streaming=data.max_documents is not None,
        skip_unreadable=data.skip_unreadable,
        remarks=remarks,
        header=data.columns,
    )
    rows = itertools.islice(rows, data.max_documents)
    read = items_of(kind, rows, data, problem, source or data.source, labelled=labelled)
    full = [item for item in read if item is not None]
    items = [item for item in full if item.label is not None or not labelled]
    if empty := len(read) - len(full):
        notes["rows_without_text"] += empty
    if unlabelled := len(full) - len(items):
        notes["rows_without_label"] += unlabelled
    if not items:
        raise DataError(f"{source or data.source} has no row with a label")
    return items


def items_of(
    kind: type[RowReader],
    rows: Iterable[Record],
    data: DataConfig,
    problem: str,
    source: str,
    *,
    labelled: bool = True,
) -> list[Item | None]:
    """The item of each row, its texts cleaned, or None for a row without text.

    Raises: DataError for a malformed row, or where no row of the `source` has text.
    """
    if not labelled:
        data = dataclasses.replace(data, label_column=None)
    exact = kind.exact(data)
    lists = kind.lists(data, problem) if has_lists_as_text(source) else ()
    items = []
    for where, row in rows:
        fields = dict(row)
        for name, value in row.items():
            if isinstance(value, str) and name not in exact:
                fields[name] = clean(value, data.normalize)
            if name in lists:
                fields[name] = read_list(f"{where}, column {name!r},", fields[name])
        items.append(kind.read(where, fields, data, problem, labelled))
    if not any(items):
        raise DataError(f"{source} has no row with text")
    return items


def has_lists_as_text(source: str) -> bool:
    """Whether cells hold lists as text, as in CSV, TSV and parallel text files."""
    if source.startswith(WITHOUT_FILES):
        return False
    texts = is_side_by_side(source)
    return texts or any(kind_of(file) in (".csv", ".tsv") for file in find_files(source))


def read_list(where: str, cell: Any) -> Any:
    """A cell in brackets as a list, read as JSON or Python; other cells unchanged."""
    if not isinstance(cell, str) or not (cell.startswith("[") and cell.endswith("]")):
        return cell
    with suppress(ValueError, RecursionError):
        return json.loads(cell)
    try:
        values = ast.literal_eval(cell)
        pieces = [token.type for token in tokenize.generate_tokens(io.StringIO(cell).readline)]
        # NumPy prints lists without commas, and Python would join the strings in them.
        if pieces.count(tokenize.STRING) <= len(values):
            return values
    except (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError):
        pass
    raise DataError(f"{where} holds {cell[:60]!r}, which is not a list in JSON or Python syntax")


def read_splits(kind: type[RowReader], config: Config, known: Sequence[str] = ()) -> RowSplits:
    """Read and split the rows that the config's data section names.

    The split is random by the seed and stratified by class; items with the same `group_of` are in
    one split. `known` are the labels of the model to start from, kept if the rows have no others.

    Raises: DataError for a mistake in the rows, such as a missing column, or a label that only
    validation rows have.
    """
    data, train_rows, problem = config.data, config.task.train_rows, config.model.problem
    notes, remarks = Counter[str](), list[str]()
    items = read_items(kind, data, problem, notes, remarks=remarks)
    items = note_repeats(kind, items, data.duplicates, notes)
    groups = [group_of(kind, item, data.duplicates) for item in items]
    order = fair_order(kind, items, groups, config.run.seed)
    items, groups = [items[i] for i in order], [groups[i] for i in order]
    unit = "different rows" if data.duplicates == "group" and notes["repeats_group"] else "rows"
    unit = "contexts" if any(kind.group(item) is not None for item in items) else unit
    tests = cut_between_groups(groups, round(len(items) * data.test_fraction))
    test, rest = items[:tests], items[tests:]
    if data.val_source is not None:
        val = read_items(kind, data, problem, notes, source=data.val_source, remarks=remarks)
    else:
        vals = cut_between_groups(groups[tests:], round(len(items) * data.val_fraction))
        val, rest = rest[:vals], rest[vals:]
        require_rows(data, "val_fraction", val, unit, "validation")
    require_rows(data, "test_fraction", test, unit, "the test")
    # The rows of val_source may share groups with those of source.
    train = without_groups(kind, rest, [*val, *test], data.duplicates, notes)
    val = without_groups(kind, val, test, data.duplicates, notes)
    if not train:
        shared = f"all of its {unit} are in the rows to validate or test on"
        reason = shared if rest else "give more rows"
        raise DataError(f"{data.source} leaves no row to train on: {reason}")
    kept = train[:train_rows]
    trained = {item.content for item in kept}
    if repeated := sum(item.content in trained for item in (*val, *test)):
        notes["held_out_repeats"] += repeated
    rows = "the training rows"
    if len(kept) < len(train):
        rows += f" that task.train_rows {train_rows} leaves"
    labels = config.model.labels or label_names(kind, kept, config, rows)
    if known and set(labels) <= set(known):
        labels = tuple(known)
    place = "model.labels" if config.model.labels else f"the labels of {rows}"
    for part in (kept, val, test):
        refuse_unknown(kind, part, labels, place)
    return RowSplits(kept, val, test, labels, notes, tuple(remarks))


def group_of(kind: type[RowReader], item: Item, duplicates: str) -> object:
    """The key of the items that a split keeps together: the context, or the text if it repeats."""
    if (group := kind.group(item)) is not None:
        return group
    return item.content if duplicates == "group" else None


def note_repeats(
    kind: type[RowReader], items: Sequence[Item], duplicates: str, notes: Counter[str]
) -> list[Item]:
    """The items, without repeated texts if `duplicates` is drop; repeats are counted."""
    first: dict[object, Item] = {}
    for item in items:
        first.setdefault(item.content, item)
    if again := len(items) - len(first):
        notes[f"repeats_{duplicates}"] += again
        if apart := sum(item.label != first[item.content].label for item in items):
            notes["repeats_labelled_apart"] += apart
    return list(first.values()) if duplicates == "drop" else list(items)


def require_rows(data: DataConfig, option: str, part: Sequence[Item], unit: str, use: str) -> None:
    """Raise DataError where a split that was asked for is empty."""
    share = getattr(data, option)
    if share and not part:
        raise DataError(
            f"{data.source} holds too few {unit} to keep {share} of them for {use}: give more, "
            f"raise data.{option}, or set it to 0"
        )


def label_names(
    kind: type[RowReader], train: Sequence[Item], config: Config, rows: str
) -> tuple[str, ...]:
    """The labels of the training rows, which an error calls `rows`; for regression the column."""
    if kind.is_classifier and config.model.problem == "regression":
        return (str(config.data.label_column),)
    if not kind.has_classes(config.model.problem):
        return ()
    labels = sorted_labels({label for item in train for label in kind.labels_in(item)})
    if len(labels) < 2 and config.model.problem == "single_label":
        raise DataError(
            f"{config.data.source} has only the label {', '.join(labels)!r} in {rows}; "
            "a classifier needs two"
        )
    return labels


def refuse_unknown(
    kind: type[RowReader], items: Sequence[Item], labels: Sequence[str], place: str
) -> None:
    """Raise DataError for a label that is not among `labels`, which come from `place`."""
    for item in items:
        for label in kind.labels_in(item):
            if label not in labels:
                raise DataError(
                    f"{item.where} has the label {label!r}, which is not among {place}: "
                    f"known are {', '.join(labels[:20])}"
                )


def fair_order(
    kind: type[RowReader], items: Sequence[Item], groups: Sequence[object], seed: int
) -> list[int]:
    """A random order whose every prefix holds about the same share of each class.

    Items of a group are kept together; the group None is none.
    """
    random = np.random.default_rng(seed)
    members = defaultdict(list)
    keys = np.empty(len(items))
    for i in random.permutation(len(items)).tolist():
        labels = tuple(kind.labels_in(items[i]))
        # Items of several labels, such as tags, count as one class, as combinations are too many.
        members[labels if len(labels) == 1 else None].append(i)
    for places in members.values():
        keys[places] = (np.arange(len(places)) + random.random()) / len(places)
    first: dict[object, int] = {}
    for i, group in enumerate(groups):
        first.setdefault(i if group is None else group, i)
    leaders = np.array([i if g is None else first[g] for i, g in enumerate(groups)], int)
    return np.lexsort((leaders, keys[leaders])).tolist()


def cut_between_groups(groups: Sequence[object], place: int) -> int:
    """The place nearest to `place` that splits no group, with items on both sides."""
    if not 0 < place < len(groups):
        return place
    whole = [
        i
        for i, (before, after) in enumerate(itertools.pairwise(groups), 1)
        if before is None or before != after
    ]
    return min(whole, key=lambda i: abs(i - place), default=0)


def without_groups(
    kind: type[RowReader],
    items: Sequence[Item],
    others: Sequence[Item],
    duplicates: str,
    notes: Counter[str],
) -> list[Item]:
    """The items whose group none of `others` has; those left out are counted."""
    taken = {group_of(kind, item, duplicates) for item in others} - {None}
    kept = [item for item in items if group_of(kind, item, duplicates) not in taken]
    if left := len(items) - len(kept):
        shared = "text" if kind.group(items[0]) is None else "context"
        notes[f"rows_sharing_{shared}"] += left
    return kept
