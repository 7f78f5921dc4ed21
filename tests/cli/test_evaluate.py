"""`jaxlm evaluate`, `jaxlm predict` and `jaxlm.embed`, as a user calls them."""

import dataclasses
import datetime
import json

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import jaxlm
from jaxlm.cli import main
from jaxlm.config import build_config
from jaxlm.data import DataError
from jaxlm.data.rows import read_rows
from jaxlm.training import fit
from tests.training.runs import tiny

ROWS = [("好", "good fox"), ("差", "lazy dog"), ("好", "quick fox"), ("差", "dog")] * 6
FEW = {"steps": 2, "eval_every": 2, "checkpoint_every": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A classifier, an encoder and a decoder, hardly trained, and rows to judge."""
    folder = tmp_path_factory.mktemp("judging")
    lines = ["label\ttext", *("\t".join(row) for row in ROWS)]
    (folder / "rows.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    encoder = {"architecture": "encoder"}
    bert = {"tokenizer": "wordpiece", "vocab_size": 150}
    own = {
        "classifier": {
            "model": encoder,
            "data": bert | {"source": str(folder / "rows.tsv")},
            "task": {"name": "sequence_classification"},
        },
        "encoder": {"model": encoder, "data": bert, "task": {"name": "masked_lm"}},
        "decoder": {},
    }
    for name, sections in own.items():
        run = {"run": {"dir": str(folder / name)}, "train": FEW, "sample": {"every": 0}}
        fit(tiny(folder, **run, **sections))
    return folder


def said(capsys, *words):
    """The JSON that a command prints."""
    assert main([*map(str, words)]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words):
    """The sentence that a command refuses with."""
    assert main([*map(str, words)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


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


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".tsv"])
def test_every_row_of_a_file_is_answered(home, tmp_path, capsys, kind):
    rows = home / "new.tsv"
    rows.write_text("id\ttext\n1\tgood fox\n2\t\n3\tdog\n", encoding="utf-8")
    out = tmp_path / f"out{kind}"
    assert (
        main(["predict", str(home / "classifier"), "--input", str(rows), "--output", str(out)]) == 0
    )
    if kind == ".jsonl":
        found = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    else:
        found = [row for _, row in read_rows(str(out), None)]
    assert [row["id"] for row in found] == ["1", "2", "3"]
    labels = [row.get("label") or None for row in found]
    expected = jaxlm.predict(jaxlm.load(home / "classifier"), ["good fox", "dog"])
    assert labels == [expected[0]["label"], None, expected[1]["label"]]


def test_lines_of_a_text_file_are_answered(home, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("good fox\n\ndog\n", encoding="utf-8")
    assert main(["predict", str(home / "classifier"), "--input", str(tmp_path / "in.txt")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["good fox", "dog"]


def test_mistakes_are_one_sentence(home, tmp_path, capsys):
    classifier, rows = home / "classifier", home / "rows.tsv"
    missing = refused(capsys, "predict", classifier, "--input", rows, "--text-column", "body")
    assert "no column 'body': set data.text_column, or --text-column of" in missing
    assert "the model's head is lm" in refused(capsys, "predict", home / "decoder", "--input", rows)
    odd = refused(capsys, "predict", classifier, "--input", rows, "--output", tmp_path / "out.xls")
    assert "must end in .jsonl, .csv or .tsv" in odd
    away = tmp_path / "nowhere" / "out.csv"
    assert "cannot write" in refused(
        capsys, "predict", classifier, "--input", rows, "--output", away
    )
    strange = tmp_path / "strange.tsv"
    strange.write_text("label\ttext\n好\tfox\n中\tdog\n", encoding="utf-8")
    told = refused(capsys, "evaluate", classifier, "--data", strange)
    assert "strange.tsv line 3 has the label '中'" in told


def test_answers_stand_beside_columns_of_their_name(home, tmp_path, capsys):
    rows = {
        "label": ["好", "差"],
        "text": ["good fox", "dog"],
        "day": [datetime.date(2020, 1, 2)] * 2,
    }
    parquet.write_table(pa.table(rows), tmp_path / "rows.parquet")
    assert (
        main(["predict", str(home / "classifier"), "--input", str(tmp_path / "rows.parquet")]) == 0
    )
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["label"] for row in found] == ["好", "差"]
    assert [row["day"] for row in found] == ["2020-01-02"] * 2
    expected = jaxlm.predict(jaxlm.load(home / "classifier"), rows["text"])
    assert [row["predicted_label"] for row in found] == [row["label"] for row in expected]


def test_a_tsv_file_of_answers_can_be_read_again(home, tmp_path, capsys):
    source, out = tmp_path / "rows.csv", tmp_path / "out.tsv"
    source.write_text('id,text\n1,"good\tfox\r\n"\n2,"""dog"""\n', encoding="utf-8")
    words = ["predict", home / "classifier", "--input", source, "--output", out]
    assert main([*map(str, words)]) == 0
    found = [row for _, row in read_rows(str(out), None)]
    assert [(row["id"], row["text"]) for row in found] == [("1", "good fox  "), ("2", '"dog"')]


def test_a_file_that_cannot_be_written_leaves_nothing(home, tmp_path, capsys):
    (tmp_path / "out.csv").mkdir()
    words = ["predict", home / "classifier", "--input", home / "rows.tsv"]
    assert "cannot write" in refused(capsys, *words, "--output", tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_text_files_are_read_as_text_files_are_everywhere(home, tmp_path, capsys):
    classifier, file = home / "classifier", tmp_path / "in.txt"
    file.write_bytes("\ufeffgood fox\r\n".encode())
    assert said(capsys, "predict", classifier, "--input", file)["text"] == "good fox"
    file.write_bytes("caf\u00e9".encode("latin-1"))
    assert "is not UTF-8" in refused(capsys, "predict", classifier, "--input", file)
    none = tmp_path / "none.txt"
    assert "none.txt' is no file" in refused(capsys, "predict", classifier, "--input", none)


def test_what_was_cut_is_told_beside_the_answers(home, tmp_path, capsys):
    file = tmp_path / "in.txt"
    file.write_text("good fox " * 200, encoding="utf-8")
    assert main(["predict", str(home / "classifier"), "--input", str(file)]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["label"]
    assert "cut at their end" in told.err


@pytest.mark.parametrize("name", ["rows.tsv", "text.txt"])
@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_rows_are_counted_from_one(home, capsys, name, count):
    words = ["predict", home / "classifier", "--input", home / name, "--max-rows", count]
    assert "a whole number above 0" in refused(capsys, *words)


def test_max_rows_holds_for_text_too(home, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("good fox\ndog\n", encoding="utf-8")
    words = ["predict", home / "classifier", "--input", tmp_path / "in.txt", "--max-rows", 1]
    assert said(capsys, *words)["text"] == "good fox"


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


def test_rows_are_read_as_the_run_read_them(home, tmp_path, capsys, monkeypatch):
    data = {"text_column": "review", "label_column": "stars", "normalize": "NFKC"}
    config = build_config({"data": data, "task": {"name": "sequence_classification"}})
    loaded = jaxlm.load(home / "classifier")
    remembering = dataclasses.replace(loaded, run_config=config)
    monkeypatch.setattr("jaxlm.loading.load", lambda path: remembering)
    source = tmp_path / "rows.tsv"
    source.write_text("stars\treview\tbody\n好\tｇｏｏｄ ｆｏｘ\tdog\n", encoding="utf-8")
    found = said(capsys, "predict", "RUN", "--input", source)
    good, dog = jaxlm.predict(loaded, ["good fox", "dog"])
    assert found["probabilities"] == pytest.approx(good["probabilities"], abs=1e-5)
    found = said(capsys, "predict", "RUN", "--input", source, "--text-column", "body")
    assert found["probabilities"] == pytest.approx(dog["probabilities"], abs=1e-5)
    assert said(capsys, "evaluate", "RUN", "--data", source, "--json")["rows"] == 1


def test_adapters_are_written_under_the_name_that_was_given(home, tmp_path, capsys, monkeypatch):
    words = ["export", home / "classifier", tmp_path / "adapter_v0.1", "--adapters"]
    assert "has no step 99; it has" in refused(capsys, *words, "--step", 99)
    away = ["export", home / "classifier", tmp_path / "none" / "adapter", "--adapters"]
    assert "there is no folder" in refused(capsys, *away)
    monkeypatch.setattr(
        "jaxlm.loading.write_trained", lambda run, file, step: file.write_bytes(b"")
    )
    assert main([*map(str, words)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["adapter_v0.1.safetensors"]


def test_a_sentence_has_the_same_vector_alone_and_among_longer_ones(home):
    loaded = jaxlm.load(home / "encoder")
    texts = ["fox", "the quick brown fox jumps over the lazy dog", "今天天气真好"]
    vectors = jaxlm.embed(loaded, texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(jaxlm.embed(loaded, [text])[0], vector, atol=1e-5)
    ids = loaded.tokenizer.backend.encode("fox").ids
    hidden = loaded.model.apply({"params": loaded.params}, jnp.array([ids]), method="hidden")
    mean = np.asarray(hidden)[0].mean(axis=0)
    np.testing.assert_allclose(jaxlm.embed(loaded, ["fox"], normalize=False)[0], mean, atol=1e-5)


def test_nothing_has_no_answer(home):
    with pytest.raises(DataError, match="text 2 is empty"):
        jaxlm.predict(jaxlm.load(home / "classifier"), ["fox", " "])
