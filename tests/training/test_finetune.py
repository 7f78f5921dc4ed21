"""From a small pretrained encoder or decoder to every task, as the training command does it."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import jaxlm
from jaxlm.checkpoint import saved_steps
from jaxlm.config import ConfigError, JaxlmError
from jaxlm.data import DataError
from jaxlm.generation.text_batch import end_tokens
from jaxlm.loading import write_run
from jaxlm.own_weights import write_trained
from jaxlm.training import fit
from tests.training.runs import assert_same_run, contents, rows, tiny
from tests.training.tuning import PRETRAIN, TUNE, assert_alike, tuned


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("task", "source"),
    [
        ("sequence_classification", "encoder"),
        pytest.param("sequence_classification", "decoder", marks=pytest.mark.slow),
        ("token_classification", "encoder"),
        pytest.param("question_answering", "encoder", marks=pytest.mark.slow),
        ("question_answering", "decoder"),
        ("chat", "decoder"),
        ("masked_lm", "encoder"),
        pytest.param("causal_lm", "decoder", marks=pytest.mark.slow),
        ("seq2seq", "encoder_decoder"),
        pytest.param("span_corruption", "encoder_decoder", marks=pytest.mark.slow),
    ],
)
def test_every_task_trains_from_a_run_and_loads_again(home, tmp_path, task, source):
    loaded = fit(tuned(home, tmp_path / "run", task, source, data={"val_fraction": 0.3}))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert np.isfinite(summary["best_val_loss"])
    assert [row["step"] for row in rows(tmp_path / "run") if row["split"] == "val"] == [3, 6]
    again = jaxlm.load(tmp_path / "run")
    assert again.config == loaded.config
    assert loaded.config.num_layers == 2
    texts = [("who 1", "the fox 1")] if task == "question_answering" else ["the fox 好"]
    if loaded.config.head != "lm":
        assert_alike(jaxlm.predict(again, texts), jaxlm.predict(loaded, texts))


def test_weights_come_from_the_source_and_only_the_head_is_new(home, tmp_path):
    still = tuned(home, tmp_path / "run", optim={"learning_rate": 0.0})
    params = flatten_dict(fit(still).params, sep="/")
    theirs = flatten_dict(jaxlm.load(home / "encoder").params, sep="/")
    assert set(params) - set(theirs) == {
        "pooler/dense/kernel",
        "pooler/dense/bias",
        "classifier/kernel",
        "classifier/bias",
    }
    for path in set(params) & set(theirs):
        np.testing.assert_array_equal(params[path], theirs[path], err_msg=path)
    anew = tuned(
        home, tmp_path / "anew", optim={"learning_rate": 0.0}, finetune={"random_init": True}
    )
    assert (
        fit(anew).params["backbone"]["embed"]["tokens"] != theirs["backbone/embed/tokens"]
    ).any()


def test_a_field_that_the_source_has_too_may_be_given(home, tmp_path):
    same = {"num_layers": 2, "d_model": 16, "num_heads": 2}
    loaded = fit(tuned(home, tmp_path / "run", model=same))
    assert loaded.config.num_layers == 2


def test_a_classifier_of_the_same_labels_is_tuned_further(home, tmp_path):
    first = fit(tuned(home, tmp_path / "first", optim={"learning_rate": 0.01}))
    again = tuned(home, tmp_path / "second", source=None, optim={"learning_rate": 0.0},
                  finetune={"init_from": str(tmp_path / "first")})  # fmt: skip
    np.testing.assert_array_equal(
        fit(again).params["classifier"]["kernel"], first.params["classifier"]["kernel"]
    )


@pytest.mark.parametrize(
    ("task", "source", "finetune"),
    [
        ("sequence_classification", "encoder", {}),
        pytest.param(
            "sequence_classification", "encoder", {"lora_rank": 2}, marks=pytest.mark.slow
        ),
        ("seq2seq", "encoder_decoder", {}),
        pytest.param("seq2seq", "encoder_decoder", {"lora_rank": 2}, marks=pytest.mark.slow),
        pytest.param("span_corruption", "encoder_decoder", {}, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_tuning_is_the_undisturbed_one(
    home, tmp_path, monkeypatch, task, source, finetune
):
    def config(name):
        return tuned(home, tmp_path / name, task, source, finetune=finetune)

    fit(config("whole"))
    from jaxlm.training.trainer import Trainer

    class Stop(Exception):
        pass

    evaluate, calls = Trainer._evaluate, []

    def stop(self, step):
        calls.append(step)
        if len(calls) == 2:
            self.saving.checkpoints.wait()
            raise Stop
        return evaluate(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_evaluate", stop)
        with pytest.raises(Stop):
            fit(config("cut"))
    fit(config("cut"))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_finished_tuning_is_left_as_it_is_and_a_changed_one_is_refused(home, tmp_path, capsys):
    config = tuned(home, tmp_path / "run")
    fit(config)
    before = contents(tmp_path / "run")
    fit(config)
    assert contents(tmp_path / "run") == before
    assert "is finished" in capsys.readouterr().out
    with pytest.raises(JaxlmError, match=r"finetune\.freeze"):
        fit(tuned(home, tmp_path / "run", finetune={"freeze": ["embed"]}))


def test_adapters_are_merged_when_a_run_is_loaded(home, tmp_path):
    loaded = fit(
        tuned(home, tmp_path / "run", finetune={"lora_rank": 2}, optim={"learning_rate": 0.1})
    )
    assert not [path for path in flatten_dict(loaded.params, sep="/") if "lora" in path]
    source = jaxlm.load(home / "encoder")
    block, theirs = (x.params["backbone"]["layers_0"]["attention"] for x in (loaded, source))
    assert (block["query"]["kernel"] != theirs["query"]["kernel"]).any()
    np.testing.assert_array_equal(block["key"]["kernel"], theirs["key"]["kernel"])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["num_trained"] < summary["num_params"] / 3
    assert summary["gradients_bytes"] == 4 * summary["num_trained"]
    saved = [leaf.size for leaf in jax.tree.leaves(loaded.params)]
    assert sum(saved) < summary["num_params"]


def test_the_best_checkpoint_is_the_one_with_most_of_the_metric(home, tmp_path):
    run = tmp_path / "run"
    rate = {"learning_rate": 0.03}  # the score rises, so that one step is the best
    fit(tuned(home, run, task={"metric": "macro_f1"}, train=TUNE | {"steps": 9}, optim=rate))
    scores = {row["step"]: row["macro_f1"] for row in rows(run) if row["split"] == "val"}
    summary = json.loads((run / "summary.json").read_text())
    assert summary["best_val_metric"] == max(scores.values())
    kept = saved_steps(run / "checkpoints")
    assert max(scores.values()) in [scores[step] for step in kept]
    assert scores[jaxlm.load(run).origin["step"]] == max(scores.values())


def test_rows_held_out_for_a_test_are_scored_at_the_end(home, tmp_path):
    fit(tuned(home, tmp_path / "run", data={"test_fraction": 0.25}))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert 0 <= summary["test"]["accuracy"] <= 1


def test_epochs_tell_the_steps(home, tmp_path):
    fit(tuned(home, tmp_path / "run", train=TUNE | {"epochs": 2}))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == 2 * (18 // 4)


MISTAKES = {
    "balanced questions": (
        {"task": {"class_weights": "balanced", "name": "question_answering"}},
        ConfigError,
        "class_weights is an option of sequence_classification and token_classification",
    ),
    "another dropout": ({"model": {"dropout": 0.3}}, ConfigError, "set finetune.dropout"),
    "another tokenizer": ({"data": {"tokenizer": "bpe"}}, ConfigError, "data.tokenizer is bpe"),
    "another depth, which is the default": (
        {"model": {"num_layers": 4}},
        ConfigError,
        "model.num_layers is 4, but finetune.init_from has 2",
    ),
    "another size": ({"model": {"d_model": 64}}, ConfigError, "model.d_model is 64, but"),
    "no source": (
        {"finetune": {"init_from": "nowhere/at/all"}},
        JaxlmError,
        "no directory nowhere",
    ),
    "a freeze that finds nothing": (
        {"finetune": {"freeze": ["layer_9"]}},
        ConfigError,
        "finetune.freeze 'layer_9' is in no path",
    ),
    "an unknown metric": (
        {"task": {"metric": "bleu"}},
        ConfigError,
        "task.metric must be one of accuracy, macro_f1, micro_f1, loss, got 'bleu'",
    ),
    "a column that is not there": (
        {"data": {"label_column": "stars"}},
        DataError,
        "no column 'stars'",
    ),
    "windows longer than the source": (
        {"data": {"seq_len": 64}},
        ConfigError,
        "data.seq_len must be at most model.max_seq_len",
    ),
    "dialogues for an encoder": ({"task": {"name": "chat"}}, ConfigError, "must be decoder for"),
    "text for the other kind": ({"task": {"name": "causal_lm"}}, ConfigError, "decoder"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_before_anything_is_written(home, tmp_path, name):
    sections, kind, message = MISTAKES[name]
    with pytest.raises(kind, match=message) as raised:
        fit(tuned(home, tmp_path / "run", **sections))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_dialogues_of_which_none_fits_are_told(home, tmp_path):
    with pytest.raises(DataError, match=r"none of \d+ rows fits data\.seq_len 2"):
        fit(tuned(home, tmp_path / "run", "chat", "decoder", data={"seq_len": 2}))


@pytest.mark.parametrize(
    "finetune",
    [
        {"lora_rank": 2},
        {"train_last_layers": 1},
        {"lora_rank": 2, "freeze": ("pooler",)},
        {"freeze": ("backbone", "classifier")},
    ],
)
def test_what_was_trained_alone_goes_back_onto_its_source(home, tmp_path, finetune):
    loaded = fit(tuned(home, tmp_path / "run", finetune=finetune, optim={"learning_rate": 0.1}))
    file = tmp_path / "part.safetensors"
    write_trained(tmp_path / "run", file)
    again = jaxlm.load(home / "encoder", trained=file)
    assert again.config == loaded.config
    assert again.run_config == loaded.run_config
    assert again.origin["step"] == loaded.origin["step"]
    for ours, theirs in zip(*map(jax.tree.leaves, (again.params, loaded.params)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert file.stat().st_size < sum(x.nbytes for x in jax.tree.leaves(loaded.params)) / 1.5
    jaxlm.load(home / "encoder", trained=file, dtype="bfloat16")
    with pytest.raises(JaxlmError, match=r"was trained on .*, not on this model"):
        jaxlm.load(home / "decoder", trained=file)
    source = jaxlm.load(home / "encoder")
    moved = jax.tree.map(lambda leaf: leaf * 1.001, source.params)
    write_run(dataclasses.replace(source, params=moved), tmp_path / "tuned further")
    with pytest.raises(JaxlmError, match=r"not on this model: a weight differs"):
        jaxlm.load(tmp_path / "tuned further", trained=file)
    with pytest.raises(JaxlmError, match="no file of trained weights"):
        jaxlm.load(home / "encoder", trained=home / "reviews.tsv")


def test_a_model_tuned_from_their_directory_ends_texts_and_is_written_as_that_was(home, tmp_path):
    llama = {"norm": "rmsnorm", "positions": "rotary", "activation": "silu", "gated": True}
    llama |= {"bias": False, "qkv_bias": False, "tie_embeddings": False}
    run = {"dir": str(tmp_path / "first")}
    first = fit(tiny(home, run=run, model=llama, train=PRETRAIN, sample={"every": 0}))
    jaxlm.export(first, tmp_path / "theirs")
    told = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    told |= {"eos_token_id": [3, 5], "bos_token_id": 4, "sliding_window": None}
    edit(tmp_path / "theirs" / "config.json", **told)
    suggested = {"eos_token_id": [3, 5], "temperature": 0.5, "do_sample": True}
    edit(tmp_path / "theirs" / "generation_config.json", **suggested)
    for source, name in (("theirs", "second"), ("second", "third")):
        finetune = {"init_from": str(tmp_path / source), "lora_rank": 2}
        config = tuned(home, tmp_path / name, "causal_lm", None, finetune=finetune)
        fit(config.replace({"run": {"name": name}}))
        loaded = jaxlm.load(tmp_path / name)
        assert loaded.origin["source"] == name
        assert end_tokens(loaded)[:2] == [3, 5]
        assert loaded.origin["generation_config"].items() >= suggested.items()
        jaxlm.export(loaded, tmp_path / f"{name} written")
        written = (tmp_path / f"{name} written" / "config.json").read_text()
        assert json.loads(written).items() >= told.items()


def test_a_run_that_trained_everything_has_no_part_to_write(home, tmp_path):
    with pytest.raises(JaxlmError, match="trained all of its weights"):
        write_trained(home / "encoder", tmp_path / "part.safetensors")
