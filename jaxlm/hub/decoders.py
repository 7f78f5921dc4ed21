"""Conversion tables of the decoders: GPT-2, Llama, Mistral, Qwen2 and Qwen3."""

import dataclasses

from jaxlm.hub.tables import (
    NO_MARK,
    REQUIRED,
    SAME,
    THIRDS,
    TRANSPOSED,
    Family,
    Ignored,
    TensorRow,
    dense,
    norm,
)

BLOCK = "backbone/layers_{i}"
TOKENS = "backbone/embed/tokens"
QKV = ("query", "key", "value")
HEAD = TensorRow(("head",), "lm_head.weight", TRANSPOSED)
SCORE = TensorRow(("classifier/kernel",), "score.weight", TRANSPOSED, ("sequence_classification",))

GPT2_BLOCK = "transformer.h.{i}"
GPT2 = Family(
    name="gpt2",
    prefix="transformer.",
    mark=r"(.*\.)?h\.\d+\.attn\.c_attn\.weight",
    heads={
        "lm": "GPT2LMHeadModel",
        "sequence_classification": "GPT2ForSequenceClassification",
        "token_classification": "GPT2ForTokenClassification",
        "question_answering": "GPT2ForQuestionAnswering",
        "none": "GPT2Model",
    },
    rows=(
        TensorRow((TOKENS,), "transformer.wte.weight"),
        TensorRow(("backbone/embed/positions",), "transformer.wpe.weight"),
        *norm(f"{BLOCK}/attention_norm", f"{GPT2_BLOCK}.ln_1"),
        *(
            TensorRow(tuple(f"{BLOCK}/attention/{part}/{leaf}" for part in QKV), tensor, THIRDS)
            for leaf, tensor in (
                ("kernel", f"{GPT2_BLOCK}.attn.c_attn.weight"),
                ("bias", f"{GPT2_BLOCK}.attn.c_attn.bias"),
            )
        ),
        *dense(f"{BLOCK}/attention/output", f"{GPT2_BLOCK}.attn.c_proj", SAME),
        *norm(f"{BLOCK}/feed_forward_norm", f"{GPT2_BLOCK}.ln_2"),
        *dense(f"{BLOCK}/feed_forward/up", f"{GPT2_BLOCK}.mlp.c_fc", SAME),
        *dense(f"{BLOCK}/feed_forward/down", f"{GPT2_BLOCK}.mlp.c_proj", SAME),
        *norm("backbone/final_norm", "transformer.ln_f"),
        HEAD,
        SCORE,
        *dense("classifier", "classifier", heads=("token_classification",)),
        *dense("classifier", "qa_outputs", heads=("question_answering",)),
    ),
    ignored=(
        Ignored(r".*\.attn\.(masked_)?bias", "the causal mask, a constant"),
        Ignored(r"lm_head\.weight", "the tied token embedding", "transformer.wte.weight"),
    ),
    structure={
        "architecture": "decoder",
        "norm": "layernorm",
        "norm_position": "pre",
        "positions": "learned",
        "gated": False,
        "bias": True,
        "qkv_bias": True,
        "qk_norm": False,
        "num_kv_heads": None,
        "head_dim": None,
    },
    fields={
        "vocab_size": ("vocab_size", REQUIRED),
        "d_model": ("n_embd", REQUIRED),
        "num_layers": ("n_layer", REQUIRED),
        "num_heads": ("n_head", REQUIRED),
        "max_seq_len": ("n_positions", REQUIRED),
        "d_ff": ("n_inner", None),
        "activation": ("activation_function", "gelu_new"),
        "norm_eps": ("layer_norm_epsilon", 1e-5),
        "tie_embeddings": ("tie_word_embeddings", True),
    },
    dropout=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    demands={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
    harmless="is_decoder n_ctx reorder_and_upcast_attn summary_type summary_use_proj "
    "summary_activation summary_proj_to_labels summary_first_dropout",
)


LLAMA_BLOCK = "model.layers.{i}"


def llama_heads(name: str) -> dict[str, str]:
    return {
        "lm": f"{name}ForCausalLM",
        "sequence_classification": f"{name}ForSequenceClassification",
        "token_classification": f"{name}ForTokenClassification",
        "none": f"{name}Model",
    }


LLAMA = Family(
    name="llama",
    prefix="model.",
    mark=r"(.*\.)?layers\.\d+\.self_attn\.q_proj\.weight",
    heads=llama_heads("Llama"),
    rows=(
        TensorRow((TOKENS,), "model.embed_tokens.weight"),
        *norm(f"{BLOCK}/attention_norm", f"{LLAMA_BLOCK}.input_layernorm"),
        *dense(f"{BLOCK}/attention/query", f"{LLAMA_BLOCK}.self_attn.q_proj"),
        *dense(f"{BLOCK}/attention/key", f"{LLAMA_BLOCK}.self_attn.k_proj"),
        *dense(f"{BLOCK}/attention/value", f"{LLAMA_BLOCK}.self_attn.v_proj"),
        *dense(f"{BLOCK}/attention/output", f"{LLAMA_BLOCK}.self_attn.o_proj"),
        *norm(f"{BLOCK}/feed_forward_norm", f"{LLAMA_BLOCK}.post_attention_layernorm"),
        *dense(f"{BLOCK}/feed_forward/gate", f"{LLAMA_BLOCK}.mlp.gate_proj"),
        *dense(f"{BLOCK}/feed_forward/up", f"{LLAMA_BLOCK}.mlp.up_proj"),
        *dense(f"{BLOCK}/feed_forward/down", f"{LLAMA_BLOCK}.mlp.down_proj"),
        TensorRow((f"{BLOCK}/attention/query_norm",), f"{LLAMA_BLOCK}.self_attn.q_norm.weight"),
        TensorRow((f"{BLOCK}/attention/key_norm",), f"{LLAMA_BLOCK}.self_attn.k_norm.weight"),
        *norm("backbone/final_norm", "model.norm"),
        HEAD,
        SCORE,
        *dense("classifier", "score", heads=("token_classification",)),
    ),
    ignored=(
        Ignored(r".*rotary_emb\.inv_freq", "follows from rope_theta"),
        Ignored(r"lm_head\.weight", "the tied token embedding", "model.embed_tokens.weight"),
    ),
    structure={
        "architecture": "decoder",
        "norm": "rmsnorm",
        "norm_position": "pre",
        "positions": "rotary",
        "gated": True,
        "bias": False,
        "qkv_bias": False,
        "qk_norm": False,
    },
    fields={
        "vocab_size": ("vocab_size", REQUIRED),
        "d_model": ("hidden_size", REQUIRED),
        "num_layers": ("num_hidden_layers", REQUIRED),
        "num_heads": ("num_attention_heads", REQUIRED),
        "num_kv_heads": ("num_key_value_heads", None),
        "head_dim": ("head_dim", None),
        "d_ff": ("intermediate_size", REQUIRED),
        "max_seq_len": ("max_position_embeddings", 2048),
        "activation": ("hidden_act", "silu"),
        "norm_eps": ("rms_norm_eps", 1e-6),
        "tie_embeddings": ("tie_word_embeddings", False),
        "rope_theta": ("rope_theta", 10000.0),
        "rope_scaling": ("rope_type", "none"),
        "rope_factor": ("factor", 1.0),
        "rope_low_freq_factor": ("low_freq_factor", 1.0),
        "rope_high_freq_factor": ("high_freq_factor", 4.0),
        "rope_original_len": ("original_max_position_embeddings", 8192),
    },
    dropout=("attention_dropout",),
    demands={"attention_bias": False, "mlp_bias": False},
    # pretraining_tp splits matrix products without changing the result.
    harmless="is_decoder pretraining_tp",
)
MISTRAL = dataclasses.replace(
    LLAMA,
    name="mistral",
    mark=NO_MARK,  # its tensors are those of Llama
    heads=llama_heads("Mistral"),
    fields={
        **LLAMA.fields,
        "num_kv_heads": ("num_key_value_heads", 8),
        "max_seq_len": ("max_position_embeddings", 131072),
    },
    demands={},
    harmless="is_decoder sliding_window",
    window=4096,
)
QWEN2 = dataclasses.replace(
    LLAMA,
    name="qwen2",
    mark=r"(.*\.)?layers\.\d+\.self_attn\.q_proj\.bias",
    heads=llama_heads("Qwen2"),
    structure={**LLAMA.structure, "qkv_bias": True},
    fields={
        **LLAMA.fields,
        "num_kv_heads": ("num_key_value_heads", 32),
        "max_seq_len": ("max_position_embeddings", 32768),
    },
    demands={},
    harmless="is_decoder layer_types max_window_layers sliding_window use_sliding_window",
    window=4096,
    window_switch=True,
)
QWEN3 = dataclasses.replace(
    QWEN2,
    name="qwen3",
    mark=r"(.*\.)?layers\.\d+\.self_attn\.q_norm\.weight",
    heads=llama_heads("Qwen3"),
    structure={**LLAMA.structure, "qk_norm": True},
    fields={**QWEN2.fields, "head_dim": ("head_dim", 128)},
    demands={"attention_bias": False},
)
