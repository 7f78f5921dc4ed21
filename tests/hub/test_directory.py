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


def edit(path, **changes):
    theirs = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(theirs | changes))


def through_a_run(theirs, tmp_path):
    """The directory that an imported and exported model is written to."""
    assert main(["import", str(theirs), str(tmp_path / "run"), "--json"]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "again"), "--json"]) == 0
    return tmp_path / "again"


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


@pytest.mark.parametrize("dtype", ["int32", "int8", bool, "complex64", "float8_e4m3fn", "x", None])
def test_a_type_that_holds_no_weights_is_refused(theirs, tmp_path, dtype):
    write_run(jaxlm.load(theirs), tmp_path / "run")
    for path in (theirs, tmp_path / "run"):
        with pytest.raises(JaxlmError, match="dtype must be one of float32, bfloat16, float16"):
            jaxlm.load(path, dtype=dtype)


def test_an_unknown_attribute_is_accepted_by_name_on_the_command_line(theirs, tmp_path, capsys):
    edit(theirs / "config.json", mystery=3)
    assert main(["import", str(theirs), str(tmp_path / "run")]) == 2
    assert "mystery (3) is unknown to us" in capsys.readouterr().err
    assert main(["import", str(theirs), str(tmp_path / "run"), "--accept", "mystery"]) == 0
    with pytest.raises(JaxlmError, match="accept is for directories of Hugging Face's"):
        jaxlm.load(tmp_path / "run", accept=["mystery"])


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("BertForQuestionAnswering", "question_answering"),
        ("BertForTokenClassification", "token_classification"),
        ("RobertaForSequenceClassification", "sequence_classification"),
        ("GPT2ForTokenClassification", "token_classification"),
        ("LlamaForSequenceClassification", "sequence_classification"),
        ("DistilBertForSequenceClassification", "sequence_classification"),
        ("DistilBertForMaskedLM", "lm"),
        ("DistilBertModel", "none"),
    ],
)
def test_heads_are_found_by_their_tensors(name, head, tmp_path):
    record = recorded(name)
    save_file(record.weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(record.theirs | {"architectures": None}))
    loaded = jaxlm.load(tmp_path)
    assert loaded.config.head == head
    assert_same(loaded.params, record.params)


def test_a_head_that_tensors_do_not_tell_is_asked_for(tmp_path):
    record = recorded("BertForSequenceClassification")
    save_file(record.weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(record.theirs | {"architectures": None}))
    with pytest.raises(JaxlmError, match="name the class in the architectures"):
        jaxlm.load(tmp_path)


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
