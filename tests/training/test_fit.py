"""The training command as a function: what it writes, evaluates and returns."""

import json
import math
import subprocess
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import yaml

import jaxlm
from jaxlm.checkpoint import saved_steps
from jaxlm.config import JaxlmError, build_config
from jaxlm.data import prepare
from jaxlm.tasks.causal_lm import causal_lm
from jaxlm.training import fit
from tests.training.runs import rows, tiny

FILES = {
    "checkpoints",
    "config.yaml",
    "environment.json",
    "loss.png",
    "metrics.jsonl",
    "samples.jsonl",
    "summary.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    fit(tiny(folder))
    return folder


def test_a_run_directory_holds_what_the_readme_names(finished: Path):
    names = {path.name for path in (finished / "run").iterdir() if not path.name.startswith(".")}
    assert names == FILES


def test_a_run_tells_the_commit_that_it_was_trained_by(finished: Path):
    written = json.loads((finished / "run" / "environment.json").read_text(encoding="utf-8"))
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(jaxlm.__file__).parent,
        capture_output=True,
        text=True,
    )
    commit = done.stdout.strip() or None  # None where the package is not in a checkout
    assert written["commit"] == commit
    assert isinstance(written["changed"], bool if commit else type(None))


def test_the_config_in_the_run_is_fully_resolved(finished: Path):
    written = yaml.safe_load((finished / "run" / "config.yaml").read_text(encoding="utf-8"))
    config = build_config(written)
    assert written["run_format"] == 2
    assert config.model.vocab_size == jaxlm.load(finished / "run").tokenizer.vocab_size
    assert config.sample.every == 12


def test_train_rows_come_at_log_every_and_val_rows_at_eval_every(finished: Path):
    found = rows(finished / "run")
    assert [row["step"] for row in found if row["split"] == "train"] == list(range(2, 25, 2))
    assert [row["step"] for row in found if row["split"] == "val"] == [6, 12, 18, 24]
    last = found[-2]
    assert last["tokens"] == 24 * 4 * 16
    assert {"loss", "grad_norm", "learning_rate", "epoch"} <= last.keys()


def test_the_model_learns(finished: Path):
    train = [row["loss"] for row in rows(finished / "run") if row["split"] == "train"]
    assert train[-1] < train[0] - 0.5


def test_a_summary_says_what_the_metrics_say(finished: Path):
    summary = json.loads((finished / "run" / "summary.json").read_text())
    losses = [row["loss"] for row in rows(finished / "run") if row["split"] == "val"]
    assert summary["best_val_loss"] == min(losses)
    assert summary["final_val_loss"] == losses[-1]
    assert summary["steps"] == 24
    assert set(summary["baselines"]) == {"1", "2", "3", "4", "5"}


def test_only_the_last_and_the_best_checkpoint_stay(finished: Path):
    steps = saved_steps(finished / "run" / "checkpoints")
    assert steps[-1] == 24
    assert len(steps) <= 2


def test_validation_is_the_mean_over_every_target_of_the_split(finished: Path):
    config = tiny(finished)
    loaded = jaxlm.load(finished / "run", step=24)
    tokens = prepare(config.data).val.tokens.astype(np.int32)
    total = 0.0
    for start in range(0, len(tokens) - 1, 16):
        window = jnp.asarray(tokens[start : start + 17])
        logits = loaded.model.apply({"params": loaded.params}, window[None, :-1])
        log_probs = np.asarray(jax.nn.log_softmax(logits[0]), np.float64)
        total -= log_probs[np.arange(len(window) - 1), window[1:]].sum()
    (row,) = (r for r in rows(finished / "run") if r["split"] == "val" and r["step"] == 24)
    assert row["loss"] == pytest.approx(total / (len(tokens) - 1), rel=1e-5)
    assert row["perplexity"] == pytest.approx(math.exp(row["loss"]))


def test_load_returns_the_best_checkpoint_and_it_generates(finished: Path):
    loaded = jaxlm.load(finished / "run")
    assert loaded.model.apply({"params": loaded.params}, jnp.zeros((2, 3), jnp.int32)).shape == (
        2,
        3,
        loaded.config.vocab_size,
    )
    (text,) = jaxlm.generate(loaded, ["今天"], max_new_tokens=4, temperature=0)
    assert len(text) == 4


def test_a_single_checkpoint_is_complete_in_itself(finished: Path, tmp_path: Path):
    copy = tmp_path / "alone"
    (finished / "run" / "checkpoints" / "24").rename(copy)
    try:
        loaded = jaxlm.load(copy)
        assert loaded.tokenizer.decode(loaded.tokenizer.encode("今天")) == "今天"
    finally:
        copy.rename(finished / "run" / "checkpoints" / "24")


def test_a_second_run_of_the_same_settings_traces_nothing_again(finished: Path, tmp_path: Path):
    called = AssertionError("traced again")
    init = mock.patch("jaxlm.training.programs.init_state", side_effect=called)
    with init, mock.patch("jaxlm.training.state.accumulated_gradients", side_effect=called):
        fit(tiny(tmp_path, run={"seed": 1}, sample={"max_new_tokens": 5}))
        with pytest.raises(AssertionError, match="traced again"):
            fit(tiny(tmp_path, run={"dir": str(tmp_path / "other")}, optim={"learning_rate": 0.02}))
    assert rows(finished / "run")[0]["loss"] != rows(tmp_path / "run")[0]["loss"]


def test_a_recipe_by_name_trains_in_runs_of_the_current_folder(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--train.steps", "1", "--train.eval_every", "9", "--sample.every", "0"]
    words += ["--model.num_layers", "1", "--data.source", "sample:mini_zh", "--data.seq_len", "8"]
    fit(jaxlm.load_config("gpt_tiny.yaml", [*words, "--data.val_fraction", "0"]))
    assert (tmp_path / "runs" / "gpt_tiny" / "summary.json").exists()


def test_without_a_validation_split_the_last_checkpoint_is_loaded(tmp_path: Path):
    fit(tiny(tmp_path, data={"val_fraction": 0}, train={"steps": 7}))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["best_val_loss"] is summary["final_val_loss"] is summary["baselines"] is None
    assert saved_steps(tmp_path / "run" / "checkpoints") == [7]


def test_early_stopping_waits_for_patience_evaluations(tmp_path: Path):
    # At a rate of zero no evaluation is better than the first.
    fit(tiny(tmp_path, optim={"learning_rate": 0.0}, train={"patience": 2}))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 18


def test_an_own_objective_and_optimizer_take_the_place_of_the_configs(tmp_path: Path):
    def halved(model, params, batch, key=None):
        sums = causal_lm(model, params, batch, key)
        return sums | {"loss": sums["loss"] / 2, "twice": sums["loss"] * 2}

    fit(tiny(tmp_path, train={"steps": 2}), objective=halved, optimizer=optax.sgd(0.0))
    row = rows(tmp_path / "run")[0]
    assert row["twice"] == pytest.approx(4 * row["loss"], rel=1e-6)
    assert "learning_rate" not in row


@pytest.mark.parametrize("optim", [{"ema_decay": 0.9}, {"name": "schedule_free"}])
def test_averaged_weights_are_what_is_evaluated_and_loaded(tmp_path: Path, optim: dict):
    fit(tiny(tmp_path, optim=optim, train={"steps": 6}))
    loaded = jaxlm.load(tmp_path / "run")
    config = tiny(tmp_path)
    tokens = prepare(config.data).val.tokens[None].astype(np.int32)
    windows = jnp.asarray(tokens[:, : (tokens.shape[1] - 1) // 16 * 16].reshape(-1, 16))
    targets = jnp.asarray(tokens[:, 1 : windows.size + 1].reshape(-1, 16))
    sums = causal_lm(loaded.model, loaded.params, {"ids": windows, "targets": targets})
    val = next(row for row in rows(tmp_path / "run") if row["split"] == "val")
    # The last, partial window is left out here.
    assert float(sums["loss"] / sums["count"]) == pytest.approx(val["loss"], rel=0.02)


def test_a_loss_that_runs_away_ends_the_run_in_one_sentence(tmp_path: Path):
    config = tiny(tmp_path, optim={"learning_rate": 1e30, "clip_norm": None, "warmup_steps": 0})
    with pytest.raises(JaxlmError, match=r"lower optim\.learning_rate"):
        fit(config)


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused_and_nothing_written(tmp_path: Path):
    with pytest.raises(JaxlmError, match=r"model\.vocab_size is 3, but the tokenizer has"):
        fit(tiny(tmp_path, model={"vocab_size": 3}))
    assert not (tmp_path / "run").exists()


def test_a_model_that_the_objective_does_not_train_is_refused(tmp_path: Path):
    config = tiny(tmp_path, task={"name": "masked_lm"})
    with pytest.raises(JaxlmError, match=r"must be encoder for task\.name masked_lm"):
        fit(config)
    assert not (tmp_path / "run").exists()


def test_a_prompt_without_a_mask_is_refused_before_a_masked_model_trains(tmp_path: Path):
    encoder = {"architecture": "encoder"}
    data = {"tokenizer": "wordpiece", "vocab_size": 80}
    config = tiny(tmp_path, model=encoder, data=data, task={"name": "masked_lm"})
    with pytest.raises(JaxlmError, match=r"each of sample\.prompts must be a text with a \[MASK\]"):
        fit(config)
