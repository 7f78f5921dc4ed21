"""`jaxlm evaluate`, as a user calls it."""

import json

import numpy as np
import pytest

import jaxlm
from jaxlm.cli import main
from tests.cli.verbs import ROWS, refused, said, train


@pytest.fixture(scope="module")
def home(home):
    """The runs of every test, and three that learned from dialogues, poems and masked words."""
    turns = [json.dumps({"turns": ["fox", f"dog {i}"]}) for i in range(20)]
    (home / "turns.jsonl").write_text("\n".join(turns), encoding="utf-8")
    poems = [json.dumps({"poem": f"ｆｏｘ {i} and 狗 {i * i}"}) for i in range(60)]
    (home / "poems.jsonl").write_text("\n".join(poems), encoding="utf-8")
    own = {
        "chat": {
            "data": {"source": str(home / "turns.jsonl"), "special_tokens": "cls_sep"},
            "task": {"name": "chat"},
        },
        "poems": {
            "data": {
                "source": str(home / "poems.jsonl"),
                "text_column": "poem",
                "normalize": "NFKC",
                "mask_documents": True,
            }
        },
        "words": {
            "model": {"architecture": "encoder"},
            "data": {"tokenizer": "wordpiece", "vocab_size": 150},
            "task": {"name": "masked_lm", "masking": "word", "mask_fraction": 0.3},
        },
    }
    for name, sections in own.items():
        train(home, name, sections)
    return home


def test_a_classifier_is_judged_with_its_confusion_matrix(home, tmp_path, capsys):
    png = tmp_path / "confusion.png"
    found = said(
        capsys, "evaluate", home / "classifier", "--data", home / "rows.tsv", "--png", png, "--json"
    )
    matrix = np.array(found["confusion"])
    assert matrix.sum() == found["rows"] == 24
    assert found["accuracy"] == pytest.approx(np.trace(matrix) / 24)
    assert found["labels"] == ["好", "差"]
    assert png.read_bytes().startswith(b"\x89PNG")
    answers = jaxlm.predict(jaxlm.load(home / "classifier"), [text for _, text in ROWS])
    right = [a["label"] == label for a, (label, _) in zip(answers, ROWS, strict=True)]
    assert found["accuracy"] == pytest.approx(np.mean(right))


def test_language_models_are_judged_on_text(home, capsys):
    decoder = said(capsys, "evaluate", home / "decoder", "--data", home / "text.txt", "--json")
    assert decoder["perplexity"] == pytest.approx(np.exp(decoder["loss"]))
    assert decoder["bits_per_byte"] > 0
    encoder = said(capsys, "evaluate", home / "encoder", "--data", home / "text.txt", "--json")
    assert encoder["pseudo_perplexity"] > 1
    assert encoder["pseudo_tokens"] > 100


def validated(run):
    """The loss of a run on its own validation split."""
    return json.loads((run / "summary.json").read_text())["final_val_loss"]


@pytest.mark.parametrize("name", ["decoder", "encoder", "words"])
def test_the_text_that_a_run_validated_on_has_the_loss_that_it_told(home, tmp_path, capsys, name):
    text = (home / "text.txt").read_text("utf-8")
    part = tmp_path / "val.txt"
    part.write_text(text[int(len(text) * 0.9) :], encoding="utf-8")
    found = said(capsys, "evaluate", home / name, "--data", part, "--json")
    assert found["loss"] == pytest.approx(validated(home / name), abs=1e-5)


def test_rows_that_a_run_validated_on_have_the_loss_that_it_told(home, tmp_path, capsys):
    lines = (home / "poems.jsonl").read_text("utf-8").splitlines()
    order = np.random.default_rng(0).permutation(len(lines))[int(len(lines) * 0.9) :]
    part = tmp_path / "val.jsonl"
    part.write_text("\n".join(lines[i] for i in order), encoding="utf-8")
    found = said(capsys, "evaluate", home / "poems", "--data", part, "--json")
    assert found["loss"] == pytest.approx(validated(home / "poems"), abs=1e-5)


def test_two_tokens_are_enough_for_a_loss(home, tmp_path, capsys):
    for text in ("天天", "fox"):
        (tmp_path / "short.txt").write_text(text, encoding="utf-8")
        found = said(
            capsys, "evaluate", home / "decoder", "--data", tmp_path / "short.txt", "--json"
        )
        assert found["tokens"] == len(text)
    (tmp_path / "one.txt").write_text("天", encoding="utf-8")
    told = refused(capsys, "evaluate", home / "decoder", "--data", tmp_path / "one.txt")
    assert "has 1 token(s): a loss takes 2 or more" in told


def test_a_run_of_dialogues_is_judged_on_dialogues(home, tmp_path, capsys):
    turns = home / "turns.jsonl"
    found = said(capsys, "evaluate", home / "chat", "--data", turns, "--json")
    assert found["rows"] == 20
    assert found == said(
        capsys, "evaluate", home / "chat", "--data", turns, "--json", "--dialogues"
    )
    (tmp_path / "text.txt").write_text("fox dog", encoding="utf-8")
    text = said(capsys, "evaluate", home / "chat", "--data", tmp_path / "text.txt", "--json")
    assert text["tokens"] == 7
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"turns": ["fox " * 100, "dog"]}), encoding="utf-8")
    assert "none of 1 rows fits" in refused(capsys, "evaluate", home / "chat", "--data", long)


def test_a_split_of_the_hub_can_be_chosen(home, capsys, monkeypatch):
    import datasets

    asked = []

    def load_dataset(name, config, split, streaming):
        asked.append((name, config, split))
        return [{"label": label, "text": text} for label, text in ROWS]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub = ["hf:who/what", "--hf-split", "test", "--hf-config", "zh"]
    assert said(capsys, "evaluate", home / "classifier", "--json", "--data", *hub)["rows"] == 24
    assert said(capsys, "evaluate", home / "decoder", "--json", "--data", *hub)["loss"] > 0
    assert main(["predict", str(home / "classifier"), "--input", *hub]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 24
    assert asked == [("who/what", "zh", "test")] * 3


def test_scores_of_each_class_are_told_and_shown(home, capsys):
    words = ["evaluate", home / "classifier", "--data", home / "rows.tsv"]
    found = said(capsys, *words, "--json")
    assert [found["by_class"][label]["rows"] for label in ("好", "差")] == [12, 12]
    macro = np.mean([row["f1"] for row in found["by_class"].values()])
    assert found["macro_f1"] == pytest.approx(macro)
    assert main([*map(str, words)]) == 0
    shown = capsys.readouterr().out
    assert "by class" in shown
    assert "precision" in shown


def test_a_summary_has_the_classes_and_what_simple_models_reach(home):
    summary = json.loads((home / "classifier" / "summary.json").read_text("utf-8"))
    assert summary["by_class"].keys() == {"好", "差"}
    simple = summary["simple_baselines"]
    assert simple["majority"]["accuracy"] == 0.5
    assert simple["tfidf_logistic_regression"]["accuracy"] == 1


def test_what_a_run_computed_in_is_recorded(home):
    assert "compute_dtype: float32" in (home / "decoder" / "config.yaml").read_text("utf-8")
    assert jaxlm.load(home / "decoder").config.compute_dtype == "float32"


def test_a_language_model_is_judged_on_no_more_rows_than_asked_for(home, capsys):
    words = ["evaluate", home / "decoder", "--data", home / "rows.tsv", "--json"]
    whole, part = said(capsys, *words), said(capsys, *words, "--max-rows", 12)
    assert part["tokens"] < 0.6 * whole["tokens"]


def test_what_a_model_cannot_be_judged_by_is_refused(home, tmp_path, capsys):
    rows, text, png = home / "rows.tsv", home / "text.txt", tmp_path / "none" / "confusion.png"
    for name in ("classifier", "encoder"):
        told = refused(capsys, "evaluate", home / name, "--data", rows, "--dialogues")
        assert "replies are those of a decoder" in told
    for option in ("--label-column", "--pair-column"):
        told = refused(capsys, "evaluate", home / "decoder", "--data", text, option, 1)
        assert f"{option} is for rows of a task" in told
    told = refused(capsys, "evaluate", home / "classifier", "--data", "nowhere", "--png", png)
    assert "there is no folder" in told
    png = tmp_path / "confusion.png"
    told = refused(capsys, "evaluate", home / "decoder", "--data", "nowhere", "--png", png)
    assert "--png draws a confusion matrix" in told
