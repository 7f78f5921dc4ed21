"""`jaxlm evaluate`, `jaxlm predict` and `jaxlm.embed`, as a user calls them."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.cli import main
from jaxlm.data import DataError
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
            "finetune": {"task": "sequence_classification"},
        },
        "encoder": {"model": encoder, "data": bert, "objective": {"name": "mlm"}},
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
        with out.open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file, delimiter="\t" if kind == ".tsv" else ","))
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
    assert "no column 'body': set text_column to 'label', 'text'" in missing
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
