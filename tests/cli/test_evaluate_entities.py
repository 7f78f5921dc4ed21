"""A run that tags entities, judged by `jaxlm evaluate` and in its own summary."""

import json

import pytest

import jaxlm
from jaxlm.cli import main
from jaxlm.tasks.baselines import dictionary_tags
from jaxlm.tasks.labelled_rows import read_splits
from jaxlm.tasks.metrics import entity_scores, tag_scores
from jaxlm.tasks.token_classification import TokenClassificationTask
from tests.cli.verbs import said, train

PLACES, PEOPLE = ("Rome", "Paris", "Oslo", "Bonn"), ("Ada", "Bo", "Cleo")
# Some places are people too, so that a dictionary is not always right.
ROWS = [
    {"tokens": [who, "is", "in", where], "tags": ["B-PER", "O", "O", "B-LOC"]}
    for who in (*PEOPLE, "Paris")
    for where in PLACES
]


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tagger")
    (folder / "tags.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n", encoding="utf-8")
    data = {"source": str(folder / "tags.jsonl"), "tokenizer": "wordpiece", "val_fraction": 0.5}
    train(
        folder,
        "run",
        {
            "model": {"architecture": "encoder"},
            "data": data,
            "task": {"name": "token_classification"},
            "optim": {"learning_rate": 0.1},
        },
    )
    return folder


def test_a_tagger_is_judged_by_type_of_entity(tagger, capsys):
    words = ["evaluate", tagger / "run", "--data", tagger / "tags.jsonl"]
    found = said(capsys, *words, "--json")
    answers = jaxlm.predict(jaxlm.load(tagger / "run"), [row["tokens"] for row in ROWS])
    said_tags = [answer["tags"] for answer in answers]
    assert found["by_class"] == entity_scores([row["tags"] for row in ROWS], said_tags)
    assert {name: row["rows"] for name, row in found["by_class"].items()} == {"LOC": 16, "PER": 16}
    assert main([*map(str, words)]) == 0
    table = capsys.readouterr().out.partition("by class")[2]
    assert "LOC" in table
    assert "PER" in table


def test_the_summary_of_a_tagger_has_its_types_and_what_a_dictionary_reaches(tagger):
    summary = json.loads((tagger / "run" / "summary.json").read_text("utf-8"))
    assert summary["by_class"].keys() == {"LOC", "PER"}
    rows = read_splits(TokenClassificationTask, jaxlm.load(tagger / "run").run_config)
    learned = [(item.content, item.label) for item in rows.train]
    tags = dictionary_tags(learned, [item.content for item in rows.val])
    scores = tag_scores([item.label for item in rows.val], tags, rows.labels)
    assert 0.5 < scores["entity_f1"] < 1
    dictionary = summary["simple_baselines"]["dictionary"]
    assert dictionary["entity_f1"] == round(scores["entity_f1"], 6)
