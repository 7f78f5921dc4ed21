"""Labels of rows: how each is spelled, their order, and what is no label."""

import dataclasses
import itertools
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.config import DataConfig
from jaxlm.data import DataError
from jaxlm.data.hub_rows import name_classes
from jaxlm.tasks import TASKS
from jaxlm.tasks.fields import sorted_labels
from jaxlm.tasks.labelled_rows import read_items
from tests.tasks.rowsets import rows_of, rowset, usual


def test_a_number_is_one_class_however_it_is_written(tmp_path):
    source = tmp_path / "rows.jsonl"
    written = [1, 1.0, "1", "1.0", 2, 2.5, True]
    lines = [json.dumps({"text": "fox", "label": value}) for value in written]
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = DataConfig(**usual("sequence_classification"))
    kind = TASKS["sequence_classification"]
    items = read_items(kind, data, "single_label", Counter(), source=str(source))
    assert [item.label for item in items] == ["1", "1", "1", "1", "2", "2.5", "true"]
    source.write_text('{"text": "fox", "label": [1.0, 2]}\n', encoding="utf-8")
    (item,) = read_items(kind, data, "multi_label", Counter(), source=str(source))
    assert item.label == ("1", "2")


@pytest.mark.parametrize("cell", ["['B-X', 'O']", '["B-X", "O"]'])
def test_a_cell_in_brackets_is_a_list(tmp_path, cell):
    task = "token_classification"
    found = rowset(
        tmp_path, [f"['fox', '{i}']\t{cell}" for i in range(20)], "tokens\ttags", task=task
    )
    assert found.train[0].content[0] == "fox"
    assert found.train[0].label == ("B-X", "O")
    assert found.labels == ("B-X", "O")


@pytest.mark.parametrize("cell", ["[B-X, O]", "['B-X' 'O']", "[1 2]"])
def test_a_cell_in_brackets_that_is_no_list_is_told_with_its_row(tmp_path, cell):
    rows = [f"['the', 'fox']\t{cell}"] * 20
    with pytest.raises(DataError, match=r"rows.tsv line 2, column 'tags', holds .* is not a list"):
        rowset(tmp_path, rows, "tokens\ttags", task="token_classification")


def test_text_in_brackets_is_text_where_a_list_needs_no_spelling(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"tokens": "[laughs]", "tags": "O"}\n', encoding="utf-8")
    data = DataConfig(**usual("token_classification"))
    kind = TASKS["token_classification"]
    (item,) = read_items(kind, data, "single_label", Counter(), source=str(source))
    assert item.content == ("[laughs]",)


def test_several_labels_may_stand_in_brackets(tmp_path):
    rows = [row for i in range(10) for row in (f"['a', 'b']\tfox {i}", f"[]\tdog {i}")]
    found = rowset(tmp_path, rows, model={"problem": "multi_label"})
    assert found.labels == ("a", "b")


def test_labels_are_in_order_by_number_or_alphabet(tmp_path):
    rows = [f"{i}\ttext {i} {j}" for i in (10, 9, 1) for j in range(5)]
    assert rowset(tmp_path, rows).labels == ("1", "9", "10")
    assert sorted_labels({"--1", "2", "10"}) == ("--1", "10", "2")


def test_labels_of_one_value_have_one_order_in_every_process(tmp_path):
    names = ["1", "01", "001", "2", "02", "-1"]
    assert {sorted_labels(set(order)) for order in itertools.permutations(names)} == {
        ("-1", "001", "01", "1", "02", "2")
    }
    assert sorted_labels({"9" * 5000, "1"}) == ("1", "9" * 5000)


def test_labels_that_the_model_knows_keep_their_places(tmp_path):
    rows = rows_of(a=9, b=9)
    assert rowset(tmp_path, rows, known=("b", "x", "a")).labels == ("b", "x", "a")
    assert rowset(tmp_path, rows, known=("b", "x")).labels == ("a", "b")


def test_a_label_that_was_not_named_is_told_with_its_row(tmp_path):
    with pytest.raises(DataError, match=r"rows.tsv line \d+ has the label 'b', .* known are a, c"):
        rowset(tmp_path, rows_of(a=9, b=9), model={"labels": ["a", "c"]})


def test_a_label_that_only_validation_has_is_told_with_its_row(tmp_path):
    val = tmp_path / "val.tsv"
    val.write_text("label\ttext\na\tfine\nz\tstrange\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"val.tsv line 3 has the label 'z', .* training rows: "):
        rowset(tmp_path, rows_of(a=9, b=9), data={"val_source": str(val)})


def test_one_label_alone_is_refused(tmp_path):
    with pytest.raises(DataError, match="only the label 'a'"):
        rowset(tmp_path, rows_of(a=9))


def test_a_run_with_other_labels_has_another_fingerprint(tmp_path):
    found = rowset(tmp_path, rows_of(a=9, b=9))
    turned = dataclasses.replace(found, labels=found.labels[::-1])
    assert turned.fingerprint != found.fingerprint


def test_each_of_several_labels_is_spelled_alone(tmp_path):
    rows = [f"1.0|2.0\tfox {i}" for i in range(9)] + [f"1|3\tdog {i}" for i in range(9)]
    assert rowset(tmp_path, rows, model={"problem": "multi_label"}).labels == ("1", "2", "3")
    tags = [f"fox {i}\t1.0 2.0" for i in range(9)] + [f"dog {i}\t1 2" for i in range(9)]
    found = rowset(tmp_path, tags, "tokens\ttags", task="token_classification")
    assert found.labels == ("1", "2")


@pytest.mark.parametrize("gap", [None, float("nan"), "", "NaN", " "])
@pytest.mark.parametrize("task", ["sequence_classification", "token_classification"])
def test_rows_without_a_label_are_left_out_and_counted(tmp_path, gap, task):
    source = tmp_path / "rows.jsonl"
    data = usual(task)
    text, label = data["text_column"], data["label_column"]
    rows = [{text: f"fox{i}", label: "ab"[i % 2]} for i in range(20)] + [{text: "dog", label: gap}]
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = rowset(tmp_path, [], task=task, data={"source": str(source)})
    assert found.labels == ("a", "b")
    assert found.notes == {"rows_without_label": 1}
    source.write_text(json.dumps(rows[-1]), encoding="utf-8")
    with pytest.raises(DataError, match="has no row with a label"):
        rowset(tmp_path, [], task=task, data={"source": str(source)})


def test_a_class_of_the_hub_that_is_not_told_is_no_label():
    assert [name_classes(value, ["no", "yes"]) for value in (0, 1, -1)] == ["no", "yes", None]


CELLS = st.none() | st.booleans() | st.integers(-3, 12) | st.floats() | st.text(max_size=5)


@given(values=st.lists(CELLS | st.lists(CELLS, max_size=3), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
@pytest.mark.parametrize("problem", ["single_label", "multi_label", "regression"])
def test_any_label_is_read_or_left_out_or_told(tmp_path_factory, problem, values):
    source = tmp_path_factory.mktemp("any") / "rows.jsonl"
    rows = [json.dumps({"text": f"fox {i}", "label": v}) for i, v in enumerate(values)]
    source.write_text("\n".join(rows), encoding="utf-8")
    kind, data = TASKS["sequence_classification"], DataConfig(**usual("sequence_classification"))
    notes = Counter()
    try:
        items = read_items(kind, data, problem, notes, source=str(source))
    except DataError:
        return
    assert len(items) + notes["rows_without_label"] == len(values)
    names = {name for item in items for name in kind.labels_in(item)}
    assert not {"", "nan", "NaN", "None"} & names or "None" in values
