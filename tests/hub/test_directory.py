"""Hugging Face directories, read."""

import json
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxlm
from jaxlm.cli import main
from jaxlm.config import JaxlmError
from jaxlm.generation import Chat
from jaxlm.loading import write_run
from tests.fixtures.reference import recorded
from tests.hub.copies import assert_same, edit


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


def test_chat_templates_without_a_default_are_told_when_the_model_is_loaded(
    theirs, gpt2, tmp_path, capsys
):
    named = [{"name": name, "template": "{{ messages }}"} for name in ("rag", "tool_use")]
    edit(theirs / "tokenizer_config.json", chat_template=named)
    told = "none of the tokenizer's chat templates (rag, tool_use) is called default: put the one"
    for path in (theirs, tmp_path / "run"):
        loaded = jaxlm.load(path)
        assert capsys.readouterr().err.startswith(f"{path}: {told} to use into")
        assert_same(loaded.params, gpt2.params)
        assert len(jaxlm.generate(loaded, ["今天"], max_new_tokens=2)) == 1
        with pytest.raises(JaxlmError, match=re.escape(told)):
            Chat(loaded)
        if path == theirs:
            write_run(loaded, tmp_path / "run")
    named[1]["name"] = "default"
    edit(theirs / "tokenizer_config.json", chat_template=named)
    jaxlm.load(theirs)
    assert capsys.readouterr().err == ""


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
