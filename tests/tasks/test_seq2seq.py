"""Pairs: how they are read, what is learned of them, and what a run on them tells."""

import json
import math
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.cli import main
from jaxlm.config import ConfigError, build_config
from jaxlm.data import DataError
from jaxlm.tasks import TASKS
from jaxlm.tasks.baselines import neighbour_answers
from jaxlm.tasks.metrics import exact_match, translation_scores
from jaxlm.tasks.teacher_forcing import TeacherForcing
from jaxlm.tasks.vocabularies import SPECIALS
from jaxlm.tokenizer import train_tokenizer
from jaxlm.training import fit
from tests.tasks.fixtures import columns, make_task, read
from tests.training.runs import rows, tiny

DATA = columns("source", label="target")
SPECIAL = SPECIALS["bos_eos"]


def char_tokenizer():
    return train_tokenizer("char", ["abcdefg"], None, SPECIAL)


@pytest.mark.parametrize(
    ("row", "data"),
    [
        ({"source": "a b", "target": "c", "more": "x"}, DATA),
        ({"en": "a b", "de": "c"}, DATA),
        ({"id": 3, "en": "a b", "de": "c"}, columns("en", label="de")),
        ({"id": 3, "translation": {"en": "a b", "de": "c"}}, DATA),
        ({"translation": {"de": "c", "en": "a b"}}, columns("en", label="de")),
    ],
)
def test_a_pair_is_found_in_columns_of_any_name(row, data):
    (item,) = read("seq2seq", [row], data)
    assert (item.content, item.label) == (("a b",), "c")


def test_what_is_no_pair_is_told_or_left_out():
    assert read("seq2seq", [{"source": " ", "target": "c"}], DATA) == [None]
    (item,) = read("seq2seq", [{"source": "a", "target": ""}], DATA)
    assert item.label is None
    with pytest.raises(DataError, match=r"no column 'source': set data\.text_column"):
        read("seq2seq", [{"a": "x", "b": "y", "c": "z"}], DATA)
    verse = {
        "In the beginning God created the heaven and the earth.": "And",
        "EN el principio": "Y",
    }
    with pytest.raises(DataError, match=r"which is a text and no name .*--data\.columns"):
        read("seq2seq", [verse], DATA)


def test_both_sides_end_and_a_pair_that_does_not_fit_is_left_out():
    task = make_task("seq2seq", char_tokenizer(), limit=4)
    rows = [{"source": "abc", "target": "de"}, {"source": "abcd", "target": "e"}]
    items = read("seq2seq", rows, DATA)
    (pair,) = task.encode(items)
    assert pair.tokens["source"].tolist() == [*task.tokenizer.encode("abc"), 1]
    assert pair.tokens["target"].tolist() == [*task.tokenizer.encode("de"), 1]
    assert task.notes["pairs_too_long"] == 1
    with pytest.raises(DataError, match="special_tokens bos_eos"):
        make_task("seq2seq", train_tokenizer("char", ["abc"])).encode(items)


class Uniform(nn.Module):
    """A model that says of every token as much, but three times as much of one."""

    def __call__(self, source_ids, target_ids, **_):
        return jnp.zeros((*target_ids.shape, 8)).at[..., 3].set(math.log(3))


def test_labels_are_smoothed_in_training_alone():
    arrays = {"source_ids": [[5, 1]], "source_mask": [[1, 1]], "target_ids": [[2, 3]]}
    arrays |= {"targets": [[3, 4]], "weights": [[1.0, 0.0]]}
    batch = {name: np.array(x) for name, x in arrays.items()}
    objective = TeacherForcing(label_smoothing=0.2)
    plain, rest = math.log(10 / 3), math.log(10)  # of the token 3, and of any other
    sums = objective(Uniform(), {}, batch, None)
    np.testing.assert_allclose(sums["loss"], plain, rtol=1e-6)
    assert (sums["count"], sums["accuracy"]) == (1, 1)
    smoothed = objective(Uniform(), {}, batch, jax.random.key(0))["loss"]
    wanted = (0.8 + 0.2 / 8) * plain + 0.2 * 7 / 8 * rest
    np.testing.assert_allclose(smoothed, wanted, rtol=1e-6)
    # Equal objectives share compiled programs.
    assert TeacherForcing(label_smoothing=0.2) == objective


def test_scores_are_those_of_sacrebleu_with_its_signature():
    sacrebleu = pytest.importorskip("sacrebleu")
    found, truth = ["the cat sat on a mat .", "Hi"], ["the cat sat on the mat .", "Hi"]
    scores, signatures = translation_scores(truth, found)
    np.testing.assert_allclose(scores["bleu"], sacrebleu.corpus_bleu(found, [truth]).score)
    np.testing.assert_allclose(scores["chrf"], sacrebleu.corpus_chrf(found, [truth]).score)
    assert "case:mixed" in signatures["bleu"]
    assert "tok:13a" in signatures["bleu"]
    assert "tok:zh" in translation_scores(["今天天气真好"], ["今天天气"])[1]["bleu"]
    assert exact_match(truth, found) == 0.5


def test_the_nearest_source_lends_its_target():
    pytest.importorskip("sklearn")
    known = ["a man in a hat", "two dogs run", "the sea"]
    found = neighbour_answers(known, ["eins", "zwei", "drei"], ["dogs that run", "hat"])
    assert found == ["zwei", "eins"]


TOY = {"source": "toy:reverse", "max_documents": 60, "seq_len": 32, "val_fraction": 0.2}
MODEL = {"architecture": "encoder_decoder", "num_layers": 1, "num_heads": 2, "d_model": 16}
FEW = {"steps": 4, "eval_every": 2, "checkpoint_every": 2, "batch_size": 8, "log_every": 1}


def config_of(folder, name="run", **sections):
    base = {
        "run": {"dir": str(folder / name)},
        "model": MODEL,
        "data": TOY,
        "task": {"name": "seq2seq", "eval_rows": 4},
        "train": FEW,
        "sample": {"prompts": None, "every": 2, "max_new_tokens": 4},
    }
    return tiny(folder, **{n: base.get(n, {}) | sections.get(n, {}) for n in {*base, *sections}})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on words to reverse, hardly trained, that averages its weights."""
    folder = tmp_path_factory.mktemp("pairs")
    fit(config_of(folder, train={"average_last": 2}))
    return folder / "run"


def test_a_run_tells_losses_scores_and_translations(run):
    vals = [row for row in rows(run) if row["split"] == "val"]
    assert [row["step"] for row in vals] == [2, 4]
    np.testing.assert_allclose(vals[-1]["perplexity"], math.exp(vals[-1]["loss"]), rtol=1e-5)
    assert {"exact_match", "accuracy"} <= vals[-1].keys()
    shown = rows(run, "samples.jsonl")
    assert len(shown) == 16
    assert all(row["reference"] == row["prompt"][::-1] for row in shown)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metric"] == "loss"
    assert "copied_source" in summary["simple_baselines"]
    config = jaxlm.load(run).config
    assert (config.decoder_start_id, config.vocab_size) == (SPECIAL.index("<s>"), 30)


def test_micro_batches_and_the_default_batch_size_count_pairs(tmp_path):
    task = TASKS["seq2seq"].from_config(config_of(tmp_path), None)
    sizes = [(b["weights"].sum(axis=1) > 0).sum() for b in map(task.train_batch, range(9))]
    assert 4 <= np.mean(sizes) <= 8
    halves = TASKS["seq2seq"].from_config(
        config_of(tmp_path, train={"accumulate_steps": 4}, task={"batch_tokens": 400}), None
    )
    assert all(len(halves.train_batch(step)["targets"]) % 4 == 0 for step in range(5))
    none = config_of(tmp_path, task={"metric": "loss", "eval_rows": 0})
    assert TASKS["seq2seq"].from_config(none, None).metrics == ("loss",)
    with pytest.raises(ConfigError, match=r"task\.metric must be one of loss"):
        TASKS["seq2seq"].from_config(none.replace({"task": {"metric": "bleu"}}), None)


def test_a_stranger_s_option_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"task\.num_beams is an option of seq2seq"):
        build_config({"task": {"name": "causal_lm", "num_beams": 2}})
    assert replace(config_of(tmp_path).task, num_beams=2).num_beams == 2


def said(capsys, *words):
    assert main([*map(str, words)]) == 0
    return capsys.readouterr().out


def test_translate_writes_what_it_reads_line_by_line(run, tmp_path, capsys):
    source = tmp_path / "in.en"
    source.write_text("abc\n\nxyz\n", encoding="utf-8")
    told = said(capsys, "translate", run, "--input", source, "--output", tmp_path / "out.de")
    assert told == f"{tmp_path / 'out.de'}: 3 lines\n"
    lines = (tmp_path / "out.de").read_text(encoding="utf-8").split("\n")
    assert (len(lines), lines[1], lines[3]) == (4, "", "")
    alone = jaxlm.translate(jaxlm.load(run), ["abc", "xyz"])
    assert [lines[0], lines[2]] == alone
    assert said(capsys, "translate", run, "--text", "abc") == alone[0] + "\n"
    # What it wrote it may write again, another's file it may not.
    said(capsys, "translate", run, "--text", "b", "--output", tmp_path / "out.de")
    assert main(["translate", str(run), "--text", "b", "--output", str(source)]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err


def test_translate_writes_rows_and_the_best_of_each(run, tmp_path, capsys):
    table = tmp_path / "in.tsv"
    table.write_text("source\ttarget\nabc\tcba\nde\ted\n", encoding="utf-8")
    out = tmp_path / "out.jsonl"
    said(capsys, "translate", run, "--input", table, "--output", out, "--n-best", 2)
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["source"] for row in found] == ["abc", "de"]
    scores = [[best["score"] for best in row["translations"]] for row in found]
    assert all(len(row) == 2 and row[0] >= row[1] for row in scores)
    words = ["translate", run, "--text", "abc", "--num-beams", 2, "--json"]
    row = json.loads(said(capsys, *words))
    assert row.keys() == {"source", "translation"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "takes either --input FILE or --text TEXT"),
        (["--text", "a", "--input", "b"], "takes either --input FILE or --text TEXT"),
        (["--text", "a", "--n-best", "2"], "--n-best takes --json"),
        (["--text", "a", "--json", "--output", "b"], "--json is for the screen"),
        (["--input", "no/such/file"], "there is no file no/such/file"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(run, capsys, words, told):
    assert main(["translate", str(run), *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_evaluate_scores_pairs_of_two_files_and_predict_answers(run, tmp_path, capsys):
    (tmp_path / "t.src").write_text("abc\nde\n", encoding="utf-8")
    (tmp_path / "t.tgt").write_text("cba\ned\n", encoding="utf-8")
    source = f"{tmp_path}/t.src + {tmp_path}/t.tgt"
    found = json.loads(said(capsys, "evaluate", run, "--data", source, "--num-beams", 2, "--json"))
    assert found["rows"] == 2
    assert found["loss"] > 0
    if "bleu" in found:
        assert found["bleu_signature"].startswith("nrefs:1")
    answer = jaxlm.predict(jaxlm.load(run), "abc")
    assert answer == {"translation": jaxlm.translate(jaxlm.load(run), "abc")}
    (tmp_path / "t.tgt").write_text("cba\n", encoding="utf-8")
    assert main(["evaluate", str(run), "--data", source]) == 2
    assert "has 1 lines, fewer than the files beside it" in capsys.readouterr().err


def test_a_vocabulary_a_side_stays_with_the_run(tmp_path, capsys):
    own = {"source_tokenizer": "char", "tokenizer": "bpe", "vocab_size": 300}
    apart = {"share_embeddings": False}
    config = config_of(tmp_path, data=own, model=apart)
    fit(config)
    loaded = jaxlm.load(tmp_path / "run")
    assert (loaded.config.source_vocab_size, loaded.config.vocab_size) == (30, 300)
    assert loaded.tokenizer.encode_sources(["abc"]) != loaded.tokenizer.encode_closed(["abc"])
    assert (tmp_path / "run" / "source_tokenizer.json").is_file()
    fit(config)
    assert "is finished" in capsys.readouterr().out
    assert len(jaxlm.translate(loaded, ["abc"])) == 1
    with pytest.raises(ConfigError, match=r"share_embeddings must be false with data\.source_tok"):
        fit(config_of(tmp_path, "other", data=own))
