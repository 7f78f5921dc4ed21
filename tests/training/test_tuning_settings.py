"""Settings of fine-tuning do what they say, while training and in what the run is used for."""

import json
import sys

import numpy as np
import pytest

import jaxlm
from jaxlm.config import JaxlmError
from jaxlm.own_weights import write_trained
from jaxlm.tasks.inference import row_task_of
from jaxlm.tasks.task import row_step
from jaxlm.training import fit
from tests.training.tuning import assert_alike, tuned


@pytest.mark.parametrize("task", ["sequence_classification", "token_classification"])
def test_balanced_classes_train_with_and_without_test_rows(home, tmp_path, task):
    for share in (0.0, 0.25):
        config = tuned(
            home,
            tmp_path / str(share),
            task,
            data={"test_fraction": share},
            task={"class_weights": "balanced"},
            optim={"name": "muon"},
        )
        assert np.isfinite(fit(config).origin["val_loss"])


def test_a_changed_pooling_is_refused_when_resuming(home, tmp_path):
    fit(tuned(home, tmp_path / "run"))
    with pytest.raises(JaxlmError, match=r"model\.pooling: token -> mean"):
        fit(tuned(home, tmp_path / "run", model={"pooling": "mean"}))


def test_the_loss_as_a_metric_is_reported_as_it_is(home, tmp_path):
    fit(tuned(home, tmp_path / "run", task={"metric": "loss"}))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["best_val_metric"] == summary["best_val_loss"] > 0


def test_answers_go_by_the_settings_of_the_run(home, tmp_path):
    data = {"normalize": "NFKC", "seq_len": 8}
    loaded = fit(tuned(home, tmp_path / "run", data=data))
    assert row_task_of(loaded).limit == 8
    wide, plain = jaxlm.predict(loaded, ["ｆｏｘ　ｂａｄ", "fox bad"])
    assert_alike(wide, plain)


def test_a_second_prediction_compiles_nothing(home, tmp_path):
    loaded = fit(tuned(home, tmp_path / "run"))
    jaxlm.predict(loaded, ["fox"])
    before = row_step._cache_size()
    assert before > 0
    jaxlm.predict(loaded, ["bad"])
    assert row_step._cache_size() == before


def test_a_missing_library_of_scores_is_told_before_anything_is_written(
    home, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(JaxlmError, match="need the metrics extra"):
        fit(tuned(home, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_adapters_on_some_blocks_train_with_scanned_layers(home, tmp_path):
    finetune = {"lora_rank": 2, "lora_targets": ["layers_1/attention"]}
    loaded = fit(tuned(home, tmp_path / "run", finetune=finetune, model={"scan_layers": True}))
    assert np.isfinite(loaded.origin["val_loss"])


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_weights_too_large_for_float16_are_told_from_every_source(home, tmp_path):
    # One step of Adam at this rate moves every weight by about 1e6.
    huge = {"optim": {"learning_rate": 1e6, "warmup_steps": 0}, "train": {"steps": 1}}
    frozen = {"finetune": {"freeze": ("backbone",)}}
    fit(tuned(home, tmp_path / "run", **huge, **frozen))
    write_trained(tmp_path / "run", tmp_path / "part.safetensors")
    jaxlm.load(tmp_path / "run", dtype="bfloat16")
    for source, trained in ((tmp_path / "run", None), (home / "encoder", "part.safetensors")):
        file = trained and tmp_path / trained
        with pytest.raises(JaxlmError, match=r"classifier/\w+ holds values too large for float16"):
            jaxlm.load(source, trained=file, dtype="float16")
