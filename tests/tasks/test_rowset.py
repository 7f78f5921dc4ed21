from collections import Counter

import pytest

from jaxlm.config import build_config
from jaxlm.data import DataError
from jaxlm.tasks import TASKS
from jaxlm.tasks.rowset import fair_order, read_rowset


def config(tmp_path, rows, header="label\ttext", task="sequence_classification", **sections):
    source = tmp_path / "rows.tsv"
    source.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    data = {"source": str(source), "val_fraction": 0.1} | sections.pop("data", {})
    finetune = {"task": task} | sections.pop("finetune", {})
    return build_config({"data": data, "finetune": finetune, **sections})


def rowset(*args, task="sequence_classification", known=(), **keywords):
    return read_rowset(TASKS[task], config(*args, task=task, **keywords), known)


def rows_of(**counts):
    return [f"{label}\ttext {label}{i}" for label, n in counts.items() for i in range(n)]


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
    few = rowset(tmp_path, rows_of(a=80, b=20), finetune={"train_rows": 10})
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
    header = "question\tcontext\tanswers"
    found = rowset(tmp_path, rows, header, task="question_answering", data={"val_fraction": 0.25})
    sides = [{item.content[1] for item in part} for part in (found.train, found.val)]
    assert not sides[0] & sides[1]
    assert len(found.train) + len(found.val) >= 36


def test_rows_without_text_are_left_out_and_counted(tmp_path):
    found = rowset(tmp_path, [*rows_of(a=10, b=10), "a\t", "b\t  "])
    assert found.notes == {"rows without text, left out": 2}
    assert len(found.train) + len(found.val) == 20


def test_labels_are_in_order_by_number_or_alphabet(tmp_path):
    rows = [f"{i}\ttext" for i in (10, 9, 1) for _ in range(5)]
    assert rowset(tmp_path, rows).labels == ("1", "9", "10")


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
    with pytest.raises(DataError, match=r"val.tsv line 3 has the label 'z', which is in none of"):
        rowset(tmp_path, rows_of(a=9, b=9), data={"val_source": str(val)})


def test_rows_of_an_own_validation_file_are_all_of_it(tmp_path):
    val = tmp_path / "val.tsv"
    val.write_text("label\ttext\na\tone\nb\ttwo\n", encoding="utf-8")
    found = rowset(tmp_path, rows_of(a=9, b=9), data={"val_source": str(val)})
    assert [item.content for item in found.val] == [("one",), ("two",)]
    assert len(found.train) == 18


MISTAKES = {
    "a column that is not there": (
        {"data": {"label_column": "stars"}},
        r"line 2 has no column 'stars': set label_column to 'label', 'text'",
    ),
    "another that is not there": (
        {"data": {"text_column": "body"}},
        r"no column 'body': set text_column to",
    ),
    "no file": ({"data": {"source": "nowhere.tsv"}}, "is no file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_settings_is_one_sentence(tmp_path, name):
    sections, message = MISTAKES[name]
    with pytest.raises(DataError, match=message) as raised:
        rowset(tmp_path, rows_of(a=9, b=9), **sections)
    assert "\n" not in str(raised.value)


def test_one_label_alone_is_refused(tmp_path):
    with pytest.raises(DataError, match="only the label 'a'"):
        rowset(tmp_path, rows_of(a=9))


def test_only_rows_without_text_are_refused(tmp_path):
    with pytest.raises(DataError, match="has no row with text"):
        rowset(tmp_path, ["a\t", "b\t"])


def test_every_beginning_of_the_order_is_fair():
    kind = TASKS["sequence_classification"]
    from jaxlm.tasks.examples import Item

    items = [Item("", (str(i),), "a" if i < 90 else "b") for i in range(100)]
    order = fair_order(kind, items, seed=3)
    assert sorted(order) == list(range(100))
    for n in range(10, 101, 10):
        assert abs(sum(i >= 90 for i in order[:n]) - n / 10) <= 1
