"""Rows to learn from, read and split; labels have a file of their own."""

import json
from collections import Counter

import pytest

from jaxlm.config import DataConfig
from jaxlm.data import DataError
from jaxlm.tasks import TASKS
from jaxlm.tasks.labelled_rows import fair_order, read_items
from tests.tasks.rowsets import rows_of, rowset, usual

QUESTIONS = "question\tcontext\tanswers"


def labels(items):
    return Counter(item.label for item in items)


def test_each_split_holds_each_class_by_its_share(tmp_path):
    found = rowset(tmp_path, rows_of(a=80, b=20), data={"test_fraction": 0.2})
    assert labels(found.test) == {"a": 16, "b": 4}
    assert labels(found.val) == {"a": 8, "b": 2}
    assert labels(found.train) == {"a": 56, "b": 14}
    assert found.labels == ("a", "b")
    whole = {item.content for part in (found.train, found.val, found.test) for item in part}
    assert len(whole) == 100


def test_fewer_training_rows_still_hold_each_class(tmp_path):
    few = rowset(tmp_path, rows_of(a=80, b=20), task_options={"train_rows": 10})
    assert labels(few.train) == {"a": 8, "b": 2}
    all_rows = rowset(tmp_path, rows_of(a=80, b=20))
    assert few.val == all_rows.val


def test_the_seed_chooses_the_split(tmp_path):
    first, again, other = (
        rowset(tmp_path, rows_of(a=30, b=30), run={"seed": s}) for s in (0, 0, 1)
    )
    assert first == again
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_questions_about_one_context_stay_together(tmp_path):
    rows = [f"q{i}\tcontext number {i // 4}\tnumber" for i in range(40)]
    data = {"val_fraction": 0.27, "test_fraction": 0.12}
    found = rowset(tmp_path, rows, QUESTIONS, task="question_answering", data=data)
    parts = found.train, found.val, found.test
    sides = [{item.content[1] for item in part} for part in parts]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 10
    # The shares hold to half a context, and no row is lost.
    assert [len(part) for part in parts] == [24, 12, 4]
    assert not found.notes


def test_questions_about_contexts_of_the_validation_rows_are_counted(tmp_path):
    val = tmp_path / "val.tsv"
    val.write_text(f"{QUESTIONS}\nq\tcontext number 1\tnumber\n", encoding="utf-8")
    rows = [f"q{i}\tcontext number {i // 4}\tnumber" for i in range(12)]
    found = rowset(
        tmp_path, rows, QUESTIONS, task="question_answering", data={"val_source": str(val)}
    )
    assert len(found.train) == 8
    assert list(found.notes.values()) == [4]
    with pytest.raises(DataError, match="no row to train on: all of its contexts are in"):
        rowset(
            tmp_path, rows[4:8], QUESTIONS, task="question_answering", data={"val_source": str(val)}
        )


def test_a_context_reaches_the_task_as_it_stands_in_the_file(tmp_path):
    context = "ｏｎｅ\r\nthe dog ran to Rome"
    answers = {"text": ["Rome"], "answer_start": [context.index("Rome")]}
    row = {"question": "ｗｈｅｒｅ", "context": context, "answers": answers}
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(row) + "\n", encoding="utf-8")
    data = DataConfig(normalize="NFKC", **usual("question_answering"))
    kind = TASKS["question_answering"]
    (item,) = read_items(kind, data, "single_label", Counter(), source=str(source))
    assert item.content == ("where", context)


def test_a_share_that_leaves_no_row_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"keep 0.1 of them for validation: .* data.val_fraction"):
        rowset(tmp_path, rows_of(a=2, b=2))
    assert not rowset(tmp_path, rows_of(a=2, b=2), data={"val_fraction": 0.0}).val
    one = [f"q{i}\tthe same context\tsame" for i in range(40)]
    with pytest.raises(DataError, match="too few contexts to keep"):
        rowset(tmp_path, one, QUESTIONS, task="question_answering")


def test_a_class_lost_to_few_training_rows_is_told_with_its_cause(tmp_path):
    rows = rows_of(a=20, b=20, c=20)
    with pytest.raises(DataError, match=r"training rows that task.train_rows 1 leaves"):
        rowset(tmp_path, rows, task_options={"train_rows": 1})
    with pytest.raises(DataError, match=r"labels of the training rows that task.train_rows 2"):
        rowset(tmp_path, rows, task_options={"train_rows": 2})


def test_rows_without_text_are_left_out_and_counted(tmp_path):
    found = rowset(tmp_path, [*rows_of(a=10, b=10), "a\t", "b\t  "])
    assert found.notes == {"rows_without_text": 2}
    assert len(found.train) + len(found.val) == 20


def test_rows_held_out_that_repeat_one_to_train_on_are_counted(tmp_path):
    val = tmp_path / "val.tsv"
    val.write_text("label\ttext\na\tfox\nb\tfox\nb\thare\n", encoding="utf-8")
    rows = ["a\tfox", "b\tdog"] * 4
    found = rowset(tmp_path, rows, data={"val_source": str(val), "duplicates": "keep"})
    assert found.notes == {"repeats_keep": 6, "held_out_repeats": 2}


def test_rows_of_an_own_validation_file_are_all_of_it(tmp_path):
    val = tmp_path / "val.tsv"
    val.write_text("label\ttext\na\tone\nb\ttwo\n", encoding="utf-8")
    found = rowset(tmp_path, rows_of(a=9, b=9), data={"val_source": str(val)})
    assert [item.content for item in found.val] == [("one",), ("two",)]
    assert len(found.train) == 18


MISTAKES = {
    "a column that is not there": (
        {"data": {"label_column": "stars"}},
        r"no column 'stars': set data.label_column, or --label-column .*, to 'label', 'text'",
    ),
    "another that is not there": (
        {"data": {"text_column": "body"}},
        r"no column 'body': set data.text_column, or --text-column",
    ),
    "no file": ({"data": {"source": "nowhere.tsv"}}, "is no file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_settings_is_one_sentence(tmp_path, name):
    sections, message = MISTAKES[name]
    with pytest.raises(DataError, match=message) as raised:
        rowset(tmp_path, rows_of(a=9, b=9), **sections)
    assert "\n" not in str(raised.value)


def test_rows_of_one_text_stand_on_one_side_of_the_split(tmp_path):
    rows = [f"{'ab'[i % 2]}\ttext {i % 30}" for i in range(150)]
    found = rowset(tmp_path, rows, data={"test_fraction": 0.2})
    train, val, test = ({item.content for item in p} for p in (found.train, found.val, found.test))
    assert not train & (val | test)
    assert not val & test
    assert len(found.train) + len(found.val) + len(found.test) == 150
    assert found.notes == {"repeats_group": 120}
    kept = rowset(tmp_path, rows, data={"duplicates": "keep"})
    assert kept.notes["repeats_keep"] == 120
    assert kept.notes["held_out_repeats"] == len(kept.val)
    dropped = rowset(tmp_path, rows, data={"duplicates": "drop"})
    assert len(dropped.train) + len(dropped.val) == 30
    assert dropped.notes == {"repeats_drop": 120}


def test_a_text_with_two_labels_is_counted(tmp_path):
    rows = [*rows_of(a=9, b=9), "b\ttext a1"]
    assert rowset(tmp_path, rows).notes == {"repeats_group": 1, "repeats_labelled_apart": 1}


def test_rows_to_train_on_that_a_validation_file_holds_are_left_out(tmp_path):
    val = tmp_path / "val.tsv"
    val.write_text("label\ttext\na\ttext a1\nb\tnew\n", encoding="utf-8")
    found = rowset(tmp_path, rows_of(a=9, b=9), data={"val_source": str(val)})
    assert (len(found.train), len(found.val)) == (17, 2)
    assert found.notes == {"rows_sharing_text": 1}


@pytest.mark.parametrize("duplicates", ["group", "keep", "drop"])
def test_rows_that_differ_are_split_as_ever(tmp_path, duplicates):
    found = rowset(tmp_path, rows_of(a=6, b=6), data={"val_fraction": 0.25}, run={"seed": 1})
    again = rowset(
        tmp_path, rows_of(a=6, b=6), run={"seed": 1},
        data={"val_fraction": 0.25, "duplicates": duplicates},
    )  # fmt: skip
    assert again == found
    assert [item.content[0][5:] for item in found.val] == ["b2", "a4", "b5"]


def test_words_and_tags_a_line_are_learned_as_they_stand(tmp_path):
    source = tmp_path / "a.conll"
    source.write_text("\n\n".join(f"Ann{i} B-PER\nsaw O" for i in range(20)), encoding="utf-8")
    found = rowset(tmp_path, [], task="token_classification", data={"source": str(source)})
    assert found.labels == ("B-PER", "O")
    assert len(found.train) == 18


def test_tables_of_a_folder_are_read_and_the_rest_is_told(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("about", encoding="utf-8")
    table = "\n".join(["label,text", *(row.replace("\t", ",") for row in rows_of(a=9, b=9))])
    (folder / "a.csv").write_text(table, encoding="utf-8")
    found = rowset(tmp_path, [], data={"source": str(folder)})
    assert len(found.train) + len(found.val) == 18
    assert found.remarks == (
        "read 1 .csv files, skipped 1 .md, which hold no rows with named columns",
    )


def test_only_rows_without_text_are_refused(tmp_path):
    with pytest.raises(DataError, match="has no row with text"):
        rowset(tmp_path, ["a\t", "b\t"])


def test_every_beginning_of_the_order_is_fair():
    kind = TASKS["sequence_classification"]
    from jaxlm.tasks.examples import Item

    items = [Item("", (str(i),), "a" if i < 90 else "b") for i in range(100)]
    order = fair_order(kind, items, [None] * 100, seed=3)
    assert sorted(order) == list(range(100))
    for n in range(10, 101, 10):
        assert abs(sum(i >= 90 for i in order[:n]) - n / 10) <= 1
