"""The tables of the families we exchange weights with: tensors, structure and config of each."""

from jaxlm.hub.tables import (
    REQUIRED,
    SAME,
    THIRDS,
    TRANSPOSED,
    Family,
    Ignored,
    Row,
    dense,
    norm,
)

BLOCK = "backbone/layers_{i}"
TOKENS = "backbone/embed/tokens"
QKV = ("query", "key", "value")
HEAD = Row(("head",), "lm_head.weight", TRANSPOSED)

# Names and ids, how to run and to return, and what only training sees.
HARMLESS = (
    "_name_or_path architectures auto_map bos_token_id chunk_size_feed_forward dtype eos_token_id "
    "gradient_checkpointing id2label initializer_range is_decoder label2id model_type "
    "output_attentions output_hidden_states output_past pad_token_id problem_type return_dict "
    "task_specific_params tokenizer_class torch_dtype transformers_version use_cache "
)

GPT2_BLOCK = "transformer.h.{i}"
GPT2 = Family(
    name="gpt2",
    rows=(
        Row((TOKENS,), "transformer.wte.weight"),
        Row(("backbone/embed/positions",), "transformer.wpe.weight"),
        *norm(f"{BLOCK}/attention_norm", f"{GPT2_BLOCK}.ln_1"),
        *(
            Row(tuple(f"{BLOCK}/attention/{part}/{leaf}" for part in QKV), tensor, THIRDS)
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
    ),
    ignored=(
        Ignored(r".*\.attn\.(masked_)?bias", "the causal mask, a constant"),
        Ignored(r"lm_head\.weight", "the tied token embedding", "transformer.wte.weight"),
    ),
    structure={
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
    demands={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
        "is_encoder_decoder": False,
    },
    harmless=HARMLESS
    + "n_ctx resid_pdrop embd_pdrop attn_pdrop reorder_and_upcast_attn summary_type "
    "summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout",
)


LLAMA_BLOCK = "model.layers.{i}"
LLAMA = Family(
    name="llama",
    rows=(
        Row((TOKENS,), "model.embed_tokens.weight"),
        *norm(f"{BLOCK}/attention_norm", f"{LLAMA_BLOCK}.input_layernorm"),
        *dense(f"{BLOCK}/attention/query", f"{LLAMA_BLOCK}.self_attn.q_proj"),
        *dense(f"{BLOCK}/attention/key", f"{LLAMA_BLOCK}.self_attn.k_proj"),
        *dense(f"{BLOCK}/attention/value", f"{LLAMA_BLOCK}.self_attn.v_proj"),
        *dense(f"{BLOCK}/attention/output", f"{LLAMA_BLOCK}.self_attn.o_proj"),
        *norm(f"{BLOCK}/feed_forward_norm", f"{LLAMA_BLOCK}.post_attention_layernorm"),
        *dense(f"{BLOCK}/feed_forward/gate", f"{LLAMA_BLOCK}.mlp.gate_proj"),
        *dense(f"{BLOCK}/feed_forward/up", f"{LLAMA_BLOCK}.mlp.up_proj"),
        *dense(f"{BLOCK}/feed_forward/down", f"{LLAMA_BLOCK}.mlp.down_proj"),
        *norm("backbone/final_norm", "model.norm"),
        HEAD,
    ),
    ignored=(
        Ignored(r".*rotary_emb\.inv_freq", "follows from rope_theta"),
        Ignored(r"lm_head\.weight", "the tied token embedding", "model.embed_tokens.weight"),
    ),
    structure={
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
        "max_seq_len": ("max_position_embeddings", REQUIRED),
        "activation": ("hidden_act", "silu"),
        "norm_eps": ("rms_norm_eps", 1e-6),
        "rope_theta": ("rope_theta", 10000.0),
        "tie_embeddings": ("tie_word_embeddings", False),
    },
    demands={
        "attention_bias": False,
        "mlp_bias": False,
        "is_encoder_decoder": False,
        "rope_parameters.rope_type": "default",
        "rope_scaling.rope_type": "default",
        "rope_scaling.type": "default",
    },
    # pretraining_tp splits products without changing them.
    harmless=HARMLESS + "attention_dropout pretraining_tp",
)

QWEN2 = Family(
    name="qwen2",
    rows=LLAMA.rows,
    ignored=LLAMA.ignored,
    structure={**LLAMA.structure, "qkv_bias": True},
    fields=LLAMA.fields,
    demands={
        **{k: v for k, v in LLAMA.demands.items() if k not in ("attention_bias", "mlp_bias")},
        "use_sliding_window": False,
        "layer_types": "full_attention",
    },
    # Both tell of a window that use_sliding_window turns off.
    harmless=HARMLESS + "attention_dropout sliding_window max_window_layers",
)

FAMILIES = {family.name: family for family in (GPT2, LLAMA, QWEN2)}
