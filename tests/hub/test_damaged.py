"""Damaged Hugging Face directories, each refused in one sentence with nothing written."""

import json
import os
import pickle
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlm.cli import main


def truncate(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def change_tensors(change):
    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def change_config(**changes):
    def damage(folder):
        theirs = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(theirs | changes))

    return damage


def lose_a_shard(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"transformer.wte.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def pickle_code(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Trap()}))


def lock(folder):
    (folder / "model.safetensors").chmod(0)


def wpe(tensors):
    tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"][:-1]


def nan(tensors):
    tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"] * np.nan


def extra(tensors):
    tensors["transformer.h.9.mlp.weight"] = np.zeros(3, np.float32)


NOT_AS_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
LLAMA = {"model_type": "llama", "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncate, "is damaged or not a safetensors file"),
        (change_tensors(wpe), "transformer.wpe.weight .* has the shape"),
        (lose_a_shard, "lacks the shards model-00001-of-00002.safetensors"),
        (change_config(model_type="mamba"), "model_type must be one of"),
        (change_config(architectures=["GPT2Something"]), "architectures must be one of"),
        (change_tensors(extra), "transformer.h.9.mlp.weight has no place in the model"),
        (change_tensors(nan), "transformer.wpe.weight holds values that are not finite"),
        (change_config(vocab_size=5), "tokenizer of .* has .* tokens, but the model only 5"),
        (change_config(**LLAMA), "rope_type must be one of default, linear, llama3"),
        pytest.param(lock, "Permission denied", marks=NOT_AS_ROOT),
        (empty, "holds no model"),
        (pickle_code, "perhaps code that would run|takes torch"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "not a tokenizer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_input_is_told_and_nothing_is_written(
    theirs, tmp_path, damage, told, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    damage(theirs)
    assert main(["import", "theirs", "run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(told, error)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
