"""An attribute of theirs is taken, passed over in words or in silence, or refused by name."""

import random

import pytest

from jaxlm.config import JaxlmError
from jaxlm.hub import config_from_reference
from tests.hub.configs import BERT, CLASSIFIER, GPT2, LLAMA, MISTRAL, QWEN2


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
