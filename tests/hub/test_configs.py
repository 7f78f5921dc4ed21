"""Configs of theirs in our words; what we would silently get wrong is refused by name."""

import dataclasses
import random

import pytest

from jaxlm.config import JaxlmError
from jaxlm.hub import config_from_reference, config_to_reference
from jaxlm.hub.configs import family_told_by
from jaxlm.models import preset

# As the published config.json files have them.
GPT2 = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.31.0.dev0",
    "use_cache": True,
    "vocab_size": 32000,
}
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
MISTRAL = {k: v for k, v in LLAMA.items() if k != "pretraining_tp"} | {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "sliding_window": None,
}
BERT = {
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "transformers_version": "4.6.0.dev0",
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": 30522,
}


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
    ("theirs", "changed", "told"),
    [
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        (GPT2, {"scale_attn_weights": False}, "scale_attn_weights must be True"),
        (GPT2, {"add_cross_attention": True}, "add_cross_attention"),
        (GPT2, {"activation_function": "quick_gelu"}, "quick_gelu"),
        (GPT2, {"quantization_config": {"bits": 4}}, "quantization_config"),
        (LLAMA, {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_type.*yarn"),
        (LLAMA, {"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope_type.*dynamic"),
        (LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (BERT, {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        (BERT, {"is_decoder": True}, "is_decoder must be False"),
        (BERT, {"architectures": ["BertLMHeadModel"]}, "architectures must be one of"),
        (MISTRAL, {"sliding_window": 4095}, "sliding_window must be None or at least"),
        (LLAMA, {"attention_bias": True}, "attention_bias must be False"),
        (
            QWEN2,
            {"use_sliding_window": True, "sliding_window": 1024, "max_window_layers": 20},
            "sliding_window must be None or at least the context of 32768 tokens, it is 1024",
        ),
        (QWEN2, {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        (QWEN2, {"model_type": "mamba"}, "model_type must be one of gpt2, llama, mistral"),
    ],
)
def test_what_we_would_get_wrong_is_refused_by_name(theirs, changed, told):
    with pytest.raises(JaxlmError, match=told):
        config_from_reference(theirs | changed)


LEFTOVERS = {
    "torchscript": True,
    "use_bfloat16": True,
    "finetuning_task": "mnli",
    "tf_legacy_loss": True,
    "eos_token_ids": 0,
    "_num_labels": 3,
    "temperature": 0.7,
    "top_k": 20,
    "max_length": 448,
    "suppress_tokens": [1, 2],
    "unsloth_fixed": True,
    "unsloth_version": "2026.1",
    "transformers.js_config": {"dtype": "q4"},
    "is_llama_config": True,
    "internal_version": 2,
    "emb_size": 312,
    "n_special": 0,
    "predict_special_tokens": True,
    "is_gpu": True,
    "im_end_token_id": 7,
}
WITHOUT_EFFECT = {
    "pruned_heads": {},
    "rope_interleaved": False,
    "use_mrope": False,
    "tie_encoder_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "quantization_config": None,
    "partial_rotary_factor": 1,
    "auto_map": {"AutoTokenizer": ["tokenization_x.XTokenizer", None]},
}


@pytest.mark.parametrize("theirs", [GPT2, LLAMA, QWEN2, MISTRAL, BERT])
def test_what_never_changes_the_numbers_is_passed_over_in_silence(theirs, caplog):
    config = config_from_reference({**LEFTOVERS, **WITHOUT_EFFECT, **theirs})
    assert config == config_from_reference(theirs)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pruned_heads", {"0": [1]}),
        ("rope_interleaved", True),
        ("use_mrope", True),
        ("tie_encoder_decoder", True),
        ("cross_attention_hidden_size", 512),
        ("partial_rotary_factor", 0.5),
        ("auto_map", {"AutoModelForCausalLM": "modeling_x.XForCausalLM"}),
        ("auto_map", "modeling_x.XForCausalLM"),
    ],
)
def test_the_same_attributes_with_an_effect_are_refused_by_name(name, value):
    with pytest.raises(JaxlmError, match=name):
        config_from_reference(LLAMA | {name: value})


def test_the_unknown_without_effect_is_told_and_passed_over(caplog):
    unknown = {"author": "somebody", "created_date": "2021", "x": None, "y": False, "z": []}
    assert config_from_reference(GPT2 | unknown) == config_from_reference(GPT2)
    assert "passed over, unknown to us: author, created_date, x, y, z" in caplog.text


@pytest.mark.parametrize("value", [3, True, 0.5, "sparse", [1], {"a": 1}])
def test_any_other_unknown_is_refused_unless_accepted(value, caplog):
    theirs = GPT2 | {"attention_mixing": value}
    with pytest.raises(JaxlmError, match=r"attention_mixing .* is unknown to us"):
        config_from_reference(theirs)
    assert config_from_reference(theirs, accept=["attention_mixing"]) == config_from_reference(GPT2)
    assert "accepted at your own risk: attention_mixing" in caplog.text


def test_a_window_is_accepted_at_ones_own_risk_and_a_misspelled_name_is_not():
    windowed = MISTRAL | {"sliding_window": 1000}
    assert config_from_reference(windowed, accept=["sliding_window"]).max_seq_len == 4096
    with pytest.raises(JaxlmError, match="there is no sliding_windows to accept"):
        config_from_reference(windowed, accept=["sliding_windows"])


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


def without(theirs, *names):
    return {name: value for name, value in theirs.items() if name not in names}


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


CLASSIFIER = BERT | {"architectures": ["BertForSequenceClassification"]}


@pytest.mark.parametrize(
    ("theirs", "changed", "told"),
    [
        (CLASSIFIER, {"num_labels": None}, "num_labels must be a whole number above 0, it is None"),
        (CLASSIFIER, {"num_labels": "3"}, "num_labels must be a whole number above 0, it is '3'"),
        (CLASSIFIER, {"num_labels": 0}, "num_labels must be a whole number above 0"),
        (CLASSIFIER, {"num_labels": 1_000_001}, "num_labels must be at most 1,000,000"),
        (CLASSIFIER, {"id2label": ["a", "b"]}, "id2label must map numbers to names of classes"),
        (CLASSIFIER, {"id2label": {"a": 0, "b": 1}}, "the keys of id2label must be 0 to 1"),
        (CLASSIFIER, {"id2label": {"1": "a", "2": "b"}}, "the keys of id2label must be 0 to 1"),
        (CLASSIFIER, {"problem_type": ["regression"]}, "problem_type must be one of"),
        (LLAMA, {"rope_scaling": "linear"}, "rope_scaling must be a mapping, it is 'linear'"),
        (LLAMA, {"rope_scaling": {"type": "linear"}}, "rope_scaling lacks factor"),
        (LLAMA, {"rope_scaling": {"type": ["linear"]}}, "rope_type must be one of"),
        (LLAMA, {"rope_scaling": {"type": "linear", "factor": 2, "x": 3}}, "rope_scaling.x"),
        (LLAMA, {"rope_theta": None}, "rope_theta must be a number above 0, it is None"),
        (LLAMA, {"max_position_embeddings": None}, "max_position_embeddings must be a whole"),
        (LLAMA, {"hidden_size": "4096"}, "hidden_size must be a whole number .* it is '4096'"),
        (LLAMA, {"hidden_size": True}, "hidden_size must be a whole number"),
        (LLAMA, {"num_hidden_layers": 2.5}, "num_hidden_layers must be a whole number"),
        (LLAMA, {"rms_norm_eps": float("nan")}, "rms_norm_eps must be a number above 0"),
        (LLAMA, {"rms_norm_eps": 10**400}, "rms_norm_eps must be a number above 0"),
        (LLAMA, {"hidden_act": ["silu"]}, "hidden_act .'silu'. is unknown to us"),
        (LLAMA, {"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false"),
        (LLAMA, {"attention_dropout": "0.1"}, "attention_dropout must be a number from 0"),
        (LLAMA, {"architectures": [7]}, "architectures must be a list of names"),
        (LLAMA, {"architectures": 7}, "architectures must be a list of names"),
        (LLAMA, {"model_type": ["llama"]}, "model_type must be one of"),
        (QWEN2, {"layer_types": "full"}, "layer_types must be 'full_attention' in every layer"),
        (MISTRAL, {"sliding_window": "9"}, "sliding_window must be None or at least"),
        (BERT, {"type_vocab_size": -1}, "type_vocab_size must be a whole number of at least 0"),
    ],
)
def test_a_value_of_the_wrong_type_is_one_sentence(theirs, changed, told):
    with pytest.raises(JaxlmError, match=told) as error:
        config_from_reference(theirs | changed)
    assert len(str(error.value)) < 400


JUNK = (
    None,
    True,
    -1,
    0,
    3,
    10**12,
    0.5,
    float("inf"),
    "",
    "x",
    [],
    [None],
    {},
    {"a": []},
    "\ud800",
)


def test_no_value_anywhere_is_a_traceback():
    chance = random.Random(0)
    bases = [GPT2, LLAMA, QWEN2, MISTRAL, BERT, CLASSIFIER]
    nested = {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}, "layer_types": ["x"]}
    nested |= {"id2label": {"0": "a"}, "num_labels": 2, "auto_map": {}, "sliding_window": 4}
    for _ in range(3000):
        theirs = dict(chance.choice(bases))
        for name in chance.sample([*theirs, *nested, "unheard_of"], k=chance.choice((1, 2, 5))):
            value = chance.choice((*JUNK, nested.get(name)))
            theirs[name] = chance.choice((value, {chance.choice(("type", "factor", "0")): value}))
        try:
            config_from_reference(theirs)
        except JaxlmError:
            continue


def test_all_that_is_wrong_is_told_at_once():
    broken = {k: v for k, v in QWEN2.items() if k != "hidden_size"} | {"mystery": 3}
    with pytest.raises(JaxlmError, match=r"mystery \(3\) is unknown to us; hidden_size is missing"):
        config_from_reference(broken)


def test_a_config_without_a_model_type_is_refused():
    with pytest.raises(JaxlmError, match="it is missing"):
        config_from_reference({"n_embd": 3})
