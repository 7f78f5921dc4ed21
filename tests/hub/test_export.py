"""What is written for transformers: whole, unchanged by a round trip, or not at all."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxlm
from jaxlm.artifact import Loaded
from jaxlm.config import JaxlmError
from jaxlm.hub import weights
from jaxlm.loading import write_run
from jaxlm.models import make_model
from jaxlm.tokenizer import train_tokenizer
from tests.fixtures.reference import recorded
from tests.fixtures.tiny import params_of, random_ids, tiny_config
from tests.hub.copies import assert_same, edit, through_a_run


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_import_then_export_gives_the_same_tensors_in_the_same_type(theirs, dtype, tmp_path):
    file = theirs / "model.safetensors"
    tensors = {k: v.astype(jnp.dtype(dtype)) for k, v in load_file(file).items()}
    save_file(tensors, file)
    again = load_file(through_a_run(theirs, tmp_path) / "model.safetensors")
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


GENERATION = {"eos_token_id": [3, 5], "temperature": 0.6, "top_p": 0.9, "do_sample": True}


@pytest.mark.parametrize(
    ("config", "generation", "kept"),
    [
        ([4, 6], None, [4, 6]),
        (4, None, [4]),
        (4, GENERATION, [3, 5]),
        ([4, 6], {"temperature": 0.6}, [4, 6]),
        (None, {"eos_token_id": 7}, [7]),
        (None, None, []),
    ],
)
def test_the_ids_that_end_a_text_are_kept(theirs, tmp_path, config, generation, kept):
    edit(theirs / "config.json", eos_token_id=config)
    if generation is not None:
        edit(theirs / "generation_config.json", **generation)
    loaded = jaxlm.load(theirs)
    assert loaded.origin["eos_token_ids"] == kept
    assert loaded.origin.get("generation_config") == generation
    again = through_a_run(theirs, tmp_path)
    assert jaxlm.load(tmp_path / "run").origin["eos_token_ids"] == kept
    assert jaxlm.load(again).origin["eos_token_ids"] == kept
    written = json.loads((again / "generation_config.json").read_text())
    assert written.items() >= (generation or {}).items()
    if kept:
        one_or_list = kept[0] if len(kept) == 1 else kept
        assert json.loads((again / "config.json").read_text())["eos_token_id"] == one_or_list


@pytest.mark.parametrize("name", ["mistral", "XLMRobertaForMaskedLM", "CamembertForMaskedLM"])
def test_a_family_that_is_like_another_stays_itself(name, tmp_path):
    record = recorded(name)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    save_file(record.weights, theirs / "model.safetensors")
    (theirs / "config.json").write_text(json.dumps(record.theirs))
    written = json.loads((through_a_run(theirs, tmp_path) / "config.json").read_text())
    assert written["model_type"] == record.theirs["model_type"]
    assert written["architectures"] == record.theirs["architectures"]


def test_positions_counted_from_another_id_than_the_padding_are_kept(tmp_path):
    record = recorded("CamembertForMaskedLM")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    save_file(record.weights, theirs / "model.safetensors")
    (theirs / "config.json").write_text(json.dumps(record.theirs | {"pad_token_id": 0}))
    train_tokenizer("char", ["天气"], specials=["<s>", "<pad>"]).save(theirs)
    loaded = jaxlm.load(theirs)
    assert (loaded.config.position_offset, loaded.tokenizer.pad_id) == (1, 1)
    written = json.loads((through_a_run(theirs, tmp_path) / "config.json").read_text())
    assert written["pad_token_id"] == 0


def test_a_classifying_decoder_is_written_with_a_padding_token(tmp_path):
    heads = {"head": "sequence_classification", "labels": ("no", "yes")}
    config = tiny_config("rotary", qkv_bias=False, **heads)
    params = params_of(make_model(config), random_ids(1, 1))
    tokenizer = train_tokenizer("char", ["今天天气"], specials=["<s>", "<unk>"])
    assert tokenizer.pad_id is None
    jaxlm.export(Loaded(make_model(config), params, tokenizer, config), tmp_path / "out")
    theirs, words = (
        json.loads((tmp_path / "out" / name).read_text())
        for name in ("config.json", "tokenizer_config.json")
    )
    assert words["pad_token"] == "<unk>"
    assert theirs["pad_token_id"] == tokenizer.unk_id


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_value_too_large_for_the_type_is_told_and_nothing_is_written(theirs, tmp_path):
    loaded = jaxlm.load(theirs)
    params = jax.tree.map(lambda leaf: leaf, loaded.params)
    tokens = params["backbone"]["embed"]["tokens"]
    params["backbone"]["embed"]["tokens"] = tokens.at[0, 0].set(1e5)
    large = Loaded(loaded.model, params, loaded.tokenizer, loaded.config)
    with pytest.raises(
        JaxlmError, match=r"transformer.wte.weight reaches 1e\+05, too large for flo"
    ):
        jaxlm.export(large, tmp_path / "half", "float16")
    assert not (tmp_path / "half").exists()
    jaxlm.export(large, tmp_path / "brain", "bfloat16")
    jaxlm.export(large, tmp_path / "whole")
    with pytest.raises(JaxlmError, match=r"wte.weight holds values too large for float16"):
        jaxlm.load(tmp_path / "whole", dtype="float16")
