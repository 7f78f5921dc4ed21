"""Runs with frozen weights: checkpoints without the base, which is found, checked or missed."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import jaxlm
from jaxlm import base_model
from jaxlm.checkpoint import saved_steps
from jaxlm.cli import main
from jaxlm.config import ConfigError, JaxlmError
from jaxlm.loading import write_run
from jaxlm.models.parameters import merge_lora
from jaxlm.own_weights import write_trained
from jaxlm.training import fit
from jaxlm.training.resolve import Heritage
from jaxlm.training.trainer import Trainer
from tests.training.runs import assert_same_run, leaves
from tests.training.tuning import TUNE, tuned

FAST = {"learning_rate": 0.1}


def same(left, right):
    ours, theirs = (flatten_dict(loaded.params, sep="/") for loaded in (left, right))
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[path], err_msg=path)


@pytest.fixture(scope="module")
def lora(home, tmp_path_factory):
    """A folder with a base and a run of adapters on it, and the run as `fit` returned it."""
    folder = tmp_path_factory.mktemp("lora")
    shutil.copytree(home / "encoder", folder / "base")
    config = tuned(home, folder / "run", source=None, optim=FAST,
                   finetune={"lora_rank": 2, "init_from": str(folder / "base")})  # fmt: skip
    return folder, fit(config), config


@pytest.fixture
def moved(lora, tmp_path):
    """The folder in another place, and none where it was."""
    folder, loaded, _ = lora
    folder.rename(tmp_path / "moved")
    yield tmp_path / "moved", loaded
    (tmp_path / "moved").rename(folder)


@pytest.mark.parametrize("finetune", [{"lora_rank": 2}, {"train_last_layers": 1}])
def test_a_checkpoint_holds_what_its_base_lacks_and_nothing_else(home, tmp_path, finetune):
    loaded = fit(tuned(home, tmp_path / "run", finetune=finetune, optim=FAST))
    held = {path for path in leaves(tmp_path / "run") if path.startswith("['params']")}
    assert any("['classifier']" in path for path in held)
    trained = "lora_" if "lora_rank" in finetune else "['layers_1']"
    layers = {path for path in held if "['layers_" in path}
    assert layers
    assert all(trained in path for path in layers)
    assert not any("['embed']" in path for path in held)
    same(jaxlm.load(tmp_path / "run"), loaded)


def test_a_run_without_a_base_holds_all_of_its_weights(home, tmp_path):
    random = {"random_init": True, "freeze": ["embed"]}
    loaded = fit(tuned(home, tmp_path / "run", finetune=random, optim=FAST))
    assert any("['tokens']" in path for path in leaves(tmp_path / "run"))
    with pytest.raises(JaxlmError, match="holds all of its weights: leave base out"):
        jaxlm.load(tmp_path / "run", base=home / "encoder")
    (home / "encoder").rename(home / "away")
    try:
        same(jaxlm.load(tmp_path / "run"), loaded)
    finally:
        (home / "away").rename(home / "encoder")


def test_a_copied_run_finds_its_base_where_it_was(lora, tmp_path):
    folder, loaded, _ = lora
    shutil.copytree(folder / "run", tmp_path / "elsewhere" / "copy")
    same(jaxlm.load(tmp_path / "elsewhere" / "copy"), loaded)
    (step,) = saved_steps(folder / "run" / "checkpoints")[-1:]
    same(jaxlm.load(folder / "run" / "checkpoints" / str(step)), jaxlm.load(folder / "run", step))


def test_a_base_that_moved_with_its_run_is_found(moved):
    folder, loaded = moved
    same(jaxlm.load(folder / "run"), loaded)


def test_a_base_that_moved_alone_is_named(moved, tmp_path, capsys):
    folder, loaded = moved
    (folder / "base").rename(tmp_path / "base")
    try:
        with pytest.raises(JaxlmError, match=r"base, which is neither at .*; bring it back, or na"):
            jaxlm.load(folder / "run")
        same(jaxlm.load(folder / "run", base=tmp_path / "base"), loaded)
        same(jaxlm.load(folder / "run", base=jaxlm.load(tmp_path / "base")), loaded)
        assert main(["export", str(folder / "run"), str(tmp_path / "x"), "--peft",
                     "--base", str(tmp_path / "base")]) == 2  # fmt: skip
        assert "--base is for a model that is written whole" in capsys.readouterr().err
    finally:
        (tmp_path / "base").rename(folder / "base")


def test_another_or_a_damaged_model_in_its_place_is_told(home, lora, tmp_path):
    folder, _, config = lora
    (folder / "base").rename(tmp_path / "kept")
    source = jaxlm.load(tmp_path / "kept")
    try:
        params = jax.tree.map(lambda leaf: leaf * 1.0001, source.params)
        write_run(dataclasses.replace(source, params=params), folder / "base")
        for call in (lambda: jaxlm.load(folder / "run"), lambda: fit(config)):
            with pytest.raises(JaxlmError, match="is another model: a weight differs; bring"):
                call()
        shutil.rmtree(folder / "base")
        write_run(source, folder / "base")
        jaxlm.load(folder / "run")  # the same weights, written anew
        file = next((folder / "base").glob("checkpoints/*/params/d/*"))
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(JaxlmError, match=r"was trained on .*base: the checkpoint .* damaged"):
            jaxlm.load(folder / "run")
    finally:
        shutil.rmtree(folder / "base")
        (tmp_path / "kept").rename(folder / "base")
    with pytest.raises(JaxlmError, match="is another model: "):
        jaxlm.load(folder / "run", base=home / "decoder")


def test_a_run_goes_on_exactly_from_a_base_that_moved(home, lora, tmp_path, monkeypatch):
    folder, _, config = lora

    def cut(self, step):
        self.saving.checkpoints.wait()
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_sample", cut)
        with pytest.raises(InterruptedError):
            fit(config.replace({"run": {"dir": str(tmp_path / "cut")}, "sample": {"every": 5}}))
    shutil.copytree(folder / "base", tmp_path / "base")
    here = {
        "run": {"dir": str(tmp_path / "cut")},
        "finetune": {"init_from": str(tmp_path / "base")},
    }
    other = here | {"finetune": {"init_from": str(home / "decoder")}}
    with pytest.raises(JaxlmError, match="is another model"):
        fit(config.replace(other))
    fit(config.replace(here))
    assert_same_run(folder / "run", tmp_path / "cut")
    meta = json.loads(next((tmp_path / "cut").glob("checkpoints/6/meta/metadata")).read_text())
    assert meta["base"]["absolute"] == str(tmp_path / "base")
    assert fit(config.replace(here)).origin["step"] == fit(config).origin["step"]


def test_a_run_on_a_run_of_adapters_stands_on_both(home, lora, tmp_path, monkeypatch):
    folder, _, _ = lora
    chain = {"lora_rank": 3, "init_from": str(folder / "run")}
    loaded = fit(tuned(home, tmp_path / "chain", source=None, finetune=chain, optim=FAST))
    same(jaxlm.load(tmp_path / "chain"), loaded)
    write_trained(tmp_path / "chain", tmp_path / "part.safetensors")
    same(jaxlm.load(folder / "run", trained=tmp_path / "part.safetensors"), loaded)
    jaxlm.load(tmp_path / "chain", dtype="bfloat16")
    with pytest.raises(JaxlmError, match="is another model: "):
        jaxlm.load(tmp_path / "chain", base=folder / "base")

    # Another machine merges to other last bits; what was merged is the same.
    def merge(params):
        merged, before = (flatten_dict(x, sep="/") for x in (merge_lora(params), params))
        apart = {k: np.nextafter(v, 9) for k, v in merged.items() if v is not before[k]}
        return unflatten_dict(merged | apart, sep="/")

    monkeypatch.setattr(base_model, "merge_lora", merge)
    jaxlm.load(tmp_path / "chain")


def test_checkpoints_of_earlier_versions_with_all_weights_go_on(home, lora, tmp_path, monkeypatch):
    folder, _, config = lora
    old = config.replace({"run": {"dir": str(tmp_path / "old")}})
    with monkeypatch.context() as patch:
        patch.setattr(Heritage, "base", lambda *parts: None)
        fit(old.replace({"train": TUNE | {"steps": 4}}))
    assert any("['tokens']" in path for path in leaves(tmp_path / "old"))
    write_trained(tmp_path / "old", tmp_path / "part.safetensors", 4)
    part = jaxlm.load(folder / "base", trained=tmp_path / "part.safetensors")
    same(part, jaxlm.load(tmp_path / "old", 4))
    with pytest.raises(JaxlmError, match=r"another config .*finetune\.init_from"):
        fit(old.replace({"finetune": {"init_from": str(home / "encoder")}}))
    fit(old)
    assert any("['tokens']" in path for path in leaves(tmp_path / "old"))


def test_a_run_does_not_delete_the_model_that_it_starts_from(lora):
    folder, loaded, config = lora
    for place in (folder / "base", folder / "base" / "checkpoints" / "6"):
        over = {"run": {"dir": str(folder / "base"), "overwrite": True}}
        with pytest.raises(ConfigError, match=r"where finetune\.init_from lies"):
            fit(config.replace(over | {"finetune": {"init_from": str(place)}}))
    same(jaxlm.load(folder / "run"), loaded)


def test_the_verb_writes_adapters_that_load_as_the_run_does(home, tmp_path, capsys):
    jaxlm.export(jaxlm.load(home / "decoder"), tmp_path / "theirs")
    finetune = {"lora_rank": 2, "init_from": str(tmp_path / "theirs")}
    fit(tuned(home, tmp_path / "run", source=None, finetune=finetune, optim=FAST))
    words = ["export", str(tmp_path / "run"), str(tmp_path / "adapters"), "--peft"]
    assert main(words) == 0
    ours, again = jaxlm.load(tmp_path / "run"), jaxlm.load(tmp_path / "adapters")
    same(again, ours)
    assert again.config == dataclasses.replace(ours.config, compute_dtype=None)
    texts = ["the fox 好", "差 bad"]
    assert jaxlm.predict(again, texts) == jaxlm.predict(ours, texts)
    names = sorted(path.name for path in Path(tmp_path / "adapters").iterdir())
    assert names[:3] == ["adapter_config.json", "adapter_model.safetensors", "config.json"]
    assert main(words) == 2
    assert "is there already and not empty" in capsys.readouterr().err
    # Adapters are a base like any other.
    chain = {"lora_rank": 1, "init_from": str(tmp_path / "adapters")}
    loaded = fit(tuned(home, tmp_path / "chain", source=None, finetune=chain, optim=FAST))
    same(jaxlm.load(tmp_path / "chain"), loaded)
