"""`jaxlm predict`, `jaxlm.predict` and `jaxlm.embed`, as a user calls them."""

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
from jaxlm.config import JaxlmError, build_config
from jaxlm.data import DataError
from jaxlm.data.rows import read_rows
from tests.cli.verbs import refused, said


def test_a_text_on_the_command_line_is_answered(home, capsys):
    found = said(capsys, "predict", home / "classifier", "--text", "good fox")
    (expected,) = jaxlm.predict(jaxlm.load(home / "classifier"), ["good fox"])
    assert found["label"] == expected["label"]
    assert found["text"] == "good fox"
    words = ["predict", home / "classifier", "--text", "a", "--input", home / "rows.tsv"]
    assert "either --input FILE or --text TEXT" in refused(capsys, *words)
    assert "either --input" in refused(capsys, "predict", home / "classifier")


def test_one_text_alone_is_one_text(home):
    classifier, encoder = jaxlm.load(home / "classifier"), jaxlm.load(home / "encoder")
    answer = jaxlm.predict(classifier, "good fox")
    assert answer["label"] == jaxlm.predict(classifier, ["good fox"])[0]["label"]
    vector = jaxlm.embed(encoder, "good fox")
    np.testing.assert_allclose(vector, jaxlm.embed(encoder, ["good fox"])[0], atol=1e-6)
    decoder = jaxlm.load(home / "decoder")
    text = jaxlm.generate(decoder, "天天", max_new_tokens=4, temperature=0)
    assert [text] == jaxlm.generate(decoder, ["天天"], max_new_tokens=4, temperature=0)
    filled = jaxlm.generation.fill(encoder, "fox [MASK] dog")
    assert filled.text == jaxlm.generation.fill(encoder, ["fox [MASK] dog"])[0].text
    assert len(jaxlm.predict(classifier, (text for text in ["fox", "dog"]))) == 2
    assert jaxlm.predict(classifier, []) == []
    assert jaxlm.embed(encoder, []).shape == (0, 16)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, "takes a text or a list of texts, got None"),
        (7, "takes a text or a list of texts, got 7"),
        ({"a": 1}, "takes a text or a list of texts"),
        (["fox", None], "text 2 is None"),
        ([3.5], "text 1 is 3.5"),
        ([b"fox"], "text 1 is b'fox'"),
        ([{"text": "fox"}], "text 1 is {'text': 'fox'}"),
        ([""], "text 1 is empty"),
    ],
)
def test_what_is_no_text_is_told(home, texts, message):
    for call, name in ((jaxlm.predict, "classifier"), (jaxlm.embed, "encoder")):
        with pytest.raises(JaxlmError, match=message):
            call(jaxlm.load(home / name), texts)
        with pytest.raises(JaxlmError, match=r"a model is what jaxlm\.load returns"):
            call(str(home / name), texts)


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


def test_rows_are_read_as_the_run_read_them(home, tmp_path, capsys, monkeypatch):
    data = {"text_column": "review", "label_column": "stars", "normalize": "NFKC", "seq_len": 16}
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
