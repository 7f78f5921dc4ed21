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


def shards(index):
    def damage(folder):
        (folder / "model.safetensors").rename(folder / "whole.safetensors")
        content = index if isinstance(index, str) else json.dumps(index)
        (folder / "model.safetensors.index.json").write_text(content)

    return damage


def one_shard(name):
    return shards({"weight_map": {"transformer.wte.weight": name}})


def write(name, content):
    return lambda folder: (folder / name).write_text(content)


def renamed(prefix):
    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
        save_file(tensors, folder / "model.safetensors")

    return damage


def retyped(kind):
    def change(tensors):
        name = "transformer.h.0.mlp.c_fc.weight"
        tensors[name] = tensors[name].astype(kind)

    return change_tensors(change)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:e859\nsize 653\n"


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
CLASSES = {"architectures": ["GPT2ForTokenClassification"], "id2label": None}
LLAMA = {"model_type": "llama", "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncate, "is damaged or not a safetensors file"),
        (change_tensors(wpe), "transformer.wpe.weight .* has the shape"),
        (one_shard("model-00001-of-00002.safetensors"), "lacks the shards model-00001-of-00002"),
        (one_shard("../whole.safetensors"), "'../whole.safetensors', which is not in its folder"),
        (one_shard("/etc/passwd"), "names '/etc/passwd', which is not in its folder"),
        (one_shard("x\0"), "which is not in its folder"),
        (one_shard(None), "its weight_map names no files"),
        (one_shard(["a"]), "its weight_map names no files"),
        (shards({"weight_map": {}}), "its weight_map names no files"),
        (shards({"weight_map": ["a"]}), "its weight_map names no files"),
        (shards({}), "its weight_map names no files"),
        (shards([]), "index.json must hold a JSON mapping"),
        (shards("{"), "index.json is not JSON"),
        (shards("[" * 10**5), "index.json is not JSON"),
        (renamed("_orig_mod."), "begin with '_orig_mod.', such as _orig_mod.transformer.*compile"),
        (renamed("module."), "begin with 'module.', such as module.transformer.*DataParallel"),
        (renamed("model.x."), "begin with 'model.x.'"),
        (retyped("int8"), "transformer.h.0.mlp.c_fc.weight has the type I8.*quantized weights"),
        (change_config(n_layer=10**6), "n_layer is 1000000, but the tensors are of 2 layers"),
        (change_config(vocab_size=10**11), "vocab_size is 100000000000, but no tensor has a dim"),
        (change_config(**CLASSES, num_labels=10**9), "num_labels must be at most 1,000,000"),
        (change_config(**CLASSES, num_labels=10**5), "100000 labels, but no tensor is so large"),
        (change_config(n_positions=10**7), "n_positions is 10000000, but no tensor has a dim"),
        (change_config(eos_token_id="</s>"), "eos_token_id .* must be one id or a list of ids"),
        (write("generation_config.json", '{"eos_token_id": [[1]]}'), "must be one id or a list"),
        (write("generation_config.json", "{"), "generation_config.json is not JSON"),
        (write("generation_config.json", "[]"), "generation_config.json must hold a JSON mapping"),
        (write("config.json", "[" * 10**5), "config.json is not JSON"),
        (write("config.json", "3"), "config.json must hold a JSON mapping"),
        (write("config.json", POINTER), "config.json is a pointer of Git LFS"),
        (write("model.safetensors", POINTER), "model.safetensors is a pointer of Git LFS"),
        (write("model.safetensors", ""), "model.safetensors is damaged"),
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
