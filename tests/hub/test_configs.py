"""Configs of theirs in our words; what we would silently get wrong is refused by name."""

import dataclasses

import pytest

from jaxlm.config import JaxlmError
from jaxlm.hub import config_from_reference, config_to_reference
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


def test_all_that_is_wrong_is_told_at_once():
    broken = {k: v for k, v in QWEN2.items() if k != "hidden_size"} | {"mystery": 3}
    with pytest.raises(JaxlmError, match=r"mystery \(3\) is unknown to us; hidden_size is missing"):
        config_from_reference(broken)


def test_a_config_without_a_model_type_is_refused():
    with pytest.raises(JaxlmError, match="it is missing"):
        config_from_reference({"n_embd": 3})
