"""Configs of theirs in our words, and the family that each is of."""

import dataclasses

import pytest

from jaxlm.config import JaxlmError
from jaxlm.hub import config_from_reference, config_to_reference
from jaxlm.hub.configs import family_told_by
from jaxlm.models import preset
from tests.hub.configs import BERT, GPT2, LLAMA, MISTRAL, QWEN2, without


@pytest.mark.parametrize(
    ("theirs", "name"),
    [(GPT2, "gpt2"), (LLAMA, "llama"), (QWEN2, "qwen2"), (BERT, "bert_base")],
)
def test_published_configs_are_our_presets(theirs, name):
    dropout = theirs.get("resid_pdrop", theirs.get("hidden_dropout_prob", 0.0))
    expected = dataclasses.replace(preset(name).resolved(), preset=None, dropout=dropout)
    assert config_from_reference(theirs) == expected


def test_rotary_settings_may_be_nested():
    nested = {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}
    assert config_from_reference(LLAMA | nested).rope_theta == 500.0
    scaled = {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    config = config_from_reference(LLAMA | scaled)
    assert (config.rope_theta, config.rope_scaling, config.rope_factor) == (500.0, "linear", 2.0)
    slowed = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.5}
    slowed |= {"high_freq_factor": 3.0, "original_max_position_embeddings": 100}
    config = config_from_reference(LLAMA | {"rope_scaling": slowed})
    assert (config.rope_scaling, config.rope_factor, config.rope_original_len) == ("llama3", 8, 100)
    assert (config.rope_low_freq_factor, config.rope_high_freq_factor) == (1.5, 3.0)


@pytest.mark.parametrize("theirs", [GPT2, LLAMA, QWEN2, MISTRAL, BERT])
def test_our_config_of_theirs_describes_the_same_model(theirs):
    config = config_from_reference(theirs)
    assert config_from_reference(config_to_reference(config)) == config


def test_labels_and_the_kind_of_problem_are_carried_over():
    theirs = BERT | {
        "architectures": ["BertForSequenceClassification"],
        "id2label": {"1": "good", "0": "bad", "2": "so-so"},
        "problem_type": "multi_label_classification",
    }
    config = config_from_reference(theirs)
    assert (config.labels, config.problem) == (("bad", "good", "so-so"), "multi_label")
    again = config_to_reference(config)
    assert again["id2label"] == {"0": "bad", "1": "good", "2": "so-so"}
    assert again["problem_type"] == "multi_label_classification"


def test_absent_attributes_have_the_default_of_the_reference():
    bare = {k: v for k, v in LLAMA.items() if k not in ("rms_norm_eps", "num_key_value_heads")}
    config = config_from_reference(bare | {"head_dim": 64, "hidden_act": "relu"})
    assert (config.norm_eps, config.num_kv_heads, config.head_dim) == (1e-6, 32, 64)
    assert config.activation == "relu"


@pytest.mark.parametrize(
    ("theirs", "changed"),
    [
        (MISTRAL, {"sliding_window": 4096}),
        (QWEN2, {"use_sliding_window": True}),
        (QWEN2, {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 24}),
        (QWEN2, {"sliding_window": 9, "layer_types": ["full_attention"] * 24}),
        (LLAMA, {"rope_scaling": {"type": "linear", "factor": 1.0}}),
        (LLAMA, {"rope_scaling": {"rope_type": "yarn", "factor": 1}}),
        (LLAMA, {"rope_parameters": {"rope_type": "dynamic", "factor": 1, "rope_theta": 1e4}}),
        (LLAMA, {"rope_scaling": {}, "rope_parameters": {"rope_theta": 1e4}}),
        (LLAMA, {"architectures": ["LLaMAForCausalLM"]}),
        (GPT2, {"activation_function": "gelu_fast"}),
        (BERT, {"hidden_act": "gelu_python"}),
    ],
)
def test_values_that_compute_the_same_are_taken(theirs, changed):
    assert config_from_reference(theirs | changed) == config_from_reference(theirs)


@pytest.mark.parametrize("theirs", [GPT2, LLAMA, QWEN2, MISTRAL, BERT])
def test_without_a_model_type_the_architecture_tells_the_family(theirs):
    bare = {name: value for name, value in theirs.items() if name != "model_type"}
    assert config_from_reference(bare) == config_from_reference(theirs)


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (["h.0.attn.c_attn.weight"], "gpt2"),
        (["model.layers.0.self_attn.q_proj.weight"], "llama"),
        (
            ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.bias"],
            "qwen2",
        ),
        (
            ["layers.0.self_attn.q_proj.weight", "layers.0.self_attn.q_norm.weight"],
            "qwen3",
        ),
        (["bert.encoder.layer.0.attention.self.query.weight"], "bert"),
        (["encoder.layer.0.attention.self.query.weight"], "bert"),
        (["roberta.encoder.layer.0.attention.self.query.weight"], "roberta"),
        (["transformer.layer.0.attention.q_lin.weight"], "distilbert"),
    ],
)
def test_without_an_architecture_too_the_tensors_tell_the_family(names, family):
    assert family_told_by({}, names).name == family


@pytest.mark.parametrize(
    ("theirs", "names"),
    [
        ({}, []),
        ({"model_type": None}, ["mixer.0.weight"]),
        # As BERT names its tensors, so does RoBERTa.
        ({"type_vocab_size": 1}, ["encoder.layer.0.attention.self.query.weight"]),
    ],
)
def test_where_nothing_tells_the_family_that_is_said(theirs, names):
    with pytest.raises(JaxlmError, match="it is missing, and nothing else tells the family"):
        family_told_by(theirs, names)


def test_rope_scaling_comes_before_rope_parameters():
    theirs = LLAMA | {
        "rope_theta": 300.0,
        "rope_scaling": {"type": "linear", "factor": 2.0},
        "rope_parameters": {"rope_type": "linear", "factor": 8.0, "rope_theta": 700.0},
    }
    config = config_from_reference(theirs)
    assert (config.rope_scaling, config.rope_factor, config.rope_theta) == ("linear", 2.0, 300.0)


def test_slowed_positions_without_an_original_length_have_the_context():
    slowed = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}
    config = config_from_reference(LLAMA | {"rope_scaling": slowed})
    assert config.rope_original_len == LLAMA["max_position_embeddings"]
    del slowed["high_freq_factor"]
    with pytest.raises(JaxlmError, match="rope_scaling lacks high_freq_factor"):
        config_from_reference(LLAMA | {"rope_scaling": slowed})


def test_a_mistral_that_names_no_window_has_one():
    long = MISTRAL | {"max_position_embeddings": 8192}
    with pytest.raises(JaxlmError, match="context of 8192 tokens, it is 4096 by default"):
        config_from_reference(without(long, "sliding_window"))


def test_absent_numbers_of_heads_are_those_of_each_family():
    for theirs, expected in ((LLAMA, 32), (MISTRAL, 8)):
        bare = without(theirs, "num_key_value_heads")
        assert config_from_reference(bare).num_kv_heads == expected
        assert config_from_reference(bare | {"num_key_value_heads": None}).num_kv_heads == 32


def test_positions_are_counted_from_after_the_padding_id():
    roberta = BERT | {"model_type": "camembert", "architectures": ["CamembertModel"]}
    config = config_from_reference(roberta | {"max_position_embeddings": 514, "pad_token_id": 0})
    assert (config.position_offset, config.max_seq_len) == (1, 513)
    config = config_from_reference(without(roberta, "pad_token_id"))
    assert (config.position_offset, config.max_seq_len) == (2, 510)


def test_a_config_without_a_model_type_is_refused():
    with pytest.raises(JaxlmError, match="it is missing"):
        config_from_reference({"n_embd": 3})
