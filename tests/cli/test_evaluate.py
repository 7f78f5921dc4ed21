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
from jaxlm.config import JaxlmError, build_config
from jaxlm.data import DataError
from jaxlm.data.rows import read_rows
from jaxlm.training import fit
from tests.training.runs import tiny

FOXES = [("好", "good fox"), ("差", "lazy dog"), ("好", "quick fox"), ("差", "dog")]
ROWS = [(label, f"{text} {name}") for name in "abcdef" for label, text in FOXES]
FEW = {"steps": 2, "eval_every": 2, "checkpoint_every": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A classifier, an encoder and a decoder, hardly trained, and rows to judge."""
    folder = tmp_path_factory.mktemp("judging")
    lines = ["label\ttext", *("\t".join(row) for row in ROWS)]
    (folder / "rows.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    turns = [json.dumps({"turns": ["fox", f"dog {i}"]}) for i in range(20)]
    (folder / "turns.jsonl").write_text("\n".join(turns), encoding="utf-8")
    poems = [json.dumps({"poem": f"ｆｏｘ {i} and 狗 {i * i}"}) for i in range(60)]
    (folder / "poems.jsonl").write_text("\n".join(poems), encoding="utf-8")
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
        "chat": {
            "data": {"source": str(folder / "turns.jsonl"), "special_tokens": "cls_sep"},
            "task": {"name": "chat"},
        },
        "poems": {
            "data": {
                "source": str(folder / "poems.jsonl"),
                "text_column": "poem",
                "normalize": "NFKC",
                "mask_documents": True,
            }
        },
        "words": {
            "model": encoder,
            "data": bert,
            "task": {"name": "masked_lm", "masking": "word", "mask_fraction": 0.3},
        },
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
