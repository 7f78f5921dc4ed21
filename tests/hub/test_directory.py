"""Hugging Face directories: read and written."""

import json
import os
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxlm
from jaxlm.artifact import Loaded
from jaxlm.cli import main
from jaxlm.config import JaxlmError
from jaxlm.hub import weights
from jaxlm.loading import write_run
from jaxlm.models import make_model
from jaxlm.tokenizer import train_tokenizer
from tests.fixtures.reference import recorded
from tests.fixtures.tiny import params_of, random_ids, tiny_config


def assert_same(params, expected):
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_a_directory_is_loaded_with_its_tokenizer(theirs, gpt2):
    loaded = jaxlm.load(theirs)
    assert_same(loaded.params, gpt2.params)
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("今天")) == "今天"
    texts = jaxlm.generate(loaded, ["今天"], max_new_tokens=4, temperature=0)
    assert len(texts) == 1


def test_a_directory_without_a_tokenizer_is_loaded_for_its_model(theirs, gpt2):
    (theirs / "tokenizer.json").unlink()
    loaded = jaxlm.load(theirs)
    assert_same(loaded.params, gpt2.params)
    with pytest.raises(JaxlmError, match="the model came without a tokenizer"):
        jaxlm.generate(loaded, ["今天"])


def test_a_gpt2_with_a_bert_vocabulary_is_continued_from_cls_without_sep(theirs):
    (theirs / "tokenizer.json").unlink()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"今天气真好"]
    (theirs / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    loaded = jaxlm.load(theirs)
    seen = jaxlm.generate_tokens(
        loaded.model, loaded.params, np.array([[2, 5, 6]]), max_new_tokens=4, temperature=0.0
    )
    text = jaxlm.generate(loaded, ["今天"], max_new_tokens=4, temperature=0.0)[0]
    assert text == loaded.tokenizer.decode(seen[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_import_then_export_gives_the_same_tensors_in_the_same_type(theirs, dtype, tmp_path):
    file = theirs / "model.safetensors"
    tensors = {k: v.astype(jnp.dtype(dtype)) for k, v in load_file(file).items()}
    save_file(tensors, file)
    assert main(["import", str(theirs), str(tmp_path / "run"), "--json"]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "again"), "--json"]) == 0
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        np.testing.assert_array_equal(again[name], tensor)


def test_tensors_of_another_type_than_the_rest_keep_it(theirs, tmp_path):
    file = theirs / "model.safetensors"
    tensors = {
        name: tensor if ".ln_1." in name else tensor.astype(jnp.dtype("bfloat16"))
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, file)
    write_run(jaxlm.load(theirs), tmp_path / "run")
    jaxlm.export(jaxlm.load(tmp_path / "run"), tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(again[name], tensor)


def test_shards_are_read_and_written(theirs, gpt2, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHARD_BYTES", 20_000)
    jaxlm.export(jaxlm.load(theirs), tmp_path / "sharded")
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert index["metadata"]["total_size"] == sum(
        leaf.nbytes for leaf in jax.tree.leaves(gpt2.params)
    )
    assert not (tmp_path / "sharded" / "model.safetensors").exists()
    assert_same(jaxlm.load(tmp_path / "sharded").params, gpt2.params)


def test_a_head_is_found_by_its_tensors_where_the_config_names_none(gpt2, tmp_path):
    for name, model in (("bert", "MaskedLM"), ("BertModel", "BareModel"), ("gpt2", "CausalLM")):
        record = recorded(name)
        folder = tmp_path / name
        folder.mkdir()
        save_file(record.weights, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(record.theirs | {"architectures": None}))
        loaded = jaxlm.load(folder)
        assert type(loaded.model).__name__ == model
        assert_same(loaded.params, record.params)


def test_an_encoder_saved_without_its_pooler_is_loaded(tmp_path):
    record = recorded("BertModel")
    kept = {k: v for k, v in record.weights.items() if not k.startswith("pooler.")}
    save_file(kept, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(record.theirs))
    assert not jaxlm.load(tmp_path).config.pooler


def test_an_export_holds_all_that_transformers_reads_and_a_card(theirs, tmp_path):
    loaded = jaxlm.load(theirs)
    jaxlm.export(loaded, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "README.md",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    card = (tmp_path / "out" / "README.md").read_text()
    assert "GPT2LMHeadModel" in card
    assert f"{sum(leaf.size for leaf in jax.tree.leaves(loaded.params)):,} parameters" in card


def test_a_run_becomes_a_directory_and_a_run_again(tmp_path):
    config = tiny_config("rotary", qkv_bias=False)  # a Qwen3
    params = params_of(make_model(config), random_ids(1, 1))
    tokenizer = train_tokenizer("char", ["今天天气"])
    loaded = Loaded(make_model(config), params, tokenizer, config, {"val_loss": 1.5})
    write_run(loaded, tmp_path / "run")
    first = jaxlm.load(tmp_path / "run")
    assert first.origin["val_loss"] == 1.5
    jaxlm.export(first, tmp_path / "theirs")
    second = jaxlm.load(tmp_path / "theirs")
    assert_same(second.params, params)
    assert second.config == config.resolved()


def test_a_structure_that_their_format_lacks_is_refused_and_nothing_is_written(tmp_path):
    config = tiny_config("sinusoidal")
    params = params_of(make_model(config), random_ids(1, 1))
    loaded = Loaded(make_model(config), params, train_tokenizer("char", ["ab"]), config)
    with pytest.raises(JaxlmError, match="positions = 'sinusoidal'"):
        jaxlm.export(loaded, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_holds_something_is_left_alone(theirs, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("ten years")
    assert main(["import", str(theirs), str(tmp_path / "full")]) == 2
    assert "is there already and not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_a_hub_id_offline_is_told_in_one_sentence(tmp_path, monkeypatch, capsys):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert main(["import", "nobody/nothing", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "neither in the cache nor can the Hugging Face hub be reached" in error
    assert error.count("\n") == 1


def test_params_go_straight_to_where_the_sharding_says():
    """On two devices, from a Hugging Face directory and from a run, whole or in halves."""
    program = """
import sys, jax, jax.numpy as jnp, numpy as np, jaxlm
from jax.sharding import NamedSharding, PartitionSpec as P
from flax.traverse_util import flatten_dict
mesh = jax.make_mesh((2,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
config = jaxlm.preset("llama", vocab_size=16, d_model=8, num_layers=1, num_heads=2, num_kv_heads=1,
                      d_ff=12, max_seq_len=8)
model = jaxlm.models.make_model(config)
params = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
from jaxlm.tokenizer import train_tokenizer
loaded = jaxlm.Loaded(model, params, train_tokenizer("char", ["abc"]), config)
jaxlm.export(loaded, sys.argv[1] + "/theirs")
from jaxlm.loading import write_run
write_run(loaded, sys.argv[1] + "/ours")
rule = lambda path: NamedSharding(mesh, P(None, "model") if path.endswith("up/kernel") else P())
for name in ("theirs", "ours"):
    placed = jaxlm.load(sys.argv[1] + "/" + name, sharding=rule, dtype="bfloat16").params
    for path, leaf in flatten_dict(placed, sep="/").items():
        assert leaf.dtype == jnp.bfloat16
        assert leaf.sharding.is_equivalent_to(rule(path), leaf.ndim), path
        old = flatten_dict(params, sep="/")[path].astype(jnp.bfloat16)
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(old))
print("placed")
"""
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(
            [sys.executable, "-c", program, folder],
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"},
            capture_output=True,
            text=True,
        )
    assert ran.stdout.endswith("placed\n"), ran.stderr
