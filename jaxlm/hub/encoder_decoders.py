"""Conversion tables of the encoder-decoders: Marian, BART and T5."""

import dataclasses

from jaxlm.hub.tables import REQUIRED, ROW, TRANSPOSED, Family, Ignored, TensorRow, dense, norm

TOKENS = "backbone/{side}/embed/tokens"
PARTS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}


def attention_rows(ours: str, theirs: str) -> tuple[TensorRow, ...]:
    return tuple(
        row for part, name in PARTS.items() for row in dense(f"{ours}/{part}", f"{theirs}.{name}")
    )


def side_rows(name: str) -> tuple[TensorRow, ...]:
    """The rows of one trunk."""
    ours, theirs = f"backbone/{name}/layers_{{i}}", f"model.{name}.layers.{{i}}"
    return (
        TensorRow((f"backbone/{name}/embed/positions",), f"model.{name}.embed_positions.weight"),
        *norm(f"backbone/{name}/embed/norm", f"model.{name}.layernorm_embedding"),
        *attention_rows(f"{ours}/attention", f"{theirs}.self_attn"),
        *norm(f"{ours}/attention_norm", f"{theirs}.self_attn_layer_norm"),
        *attention_rows(f"{ours}/cross_attention", f"{theirs}.encoder_attn"),
        *norm(f"{ours}/cross_attention_norm", f"{theirs}.encoder_attn_layer_norm"),
        *dense(f"{ours}/feed_forward/up", f"{theirs}.fc1"),
        *dense(f"{ours}/feed_forward/down", f"{theirs}.fc2"),
        *norm(f"{ours}/feed_forward_norm", f"{theirs}.final_layer_norm"),
    )


SHARED_TABLE, OWN_TABLES = ("share_embeddings", True), ("share_embeddings", False)
SHARED, TARGET = "model.shared.weight", "model.decoder.embed_tokens.weight"
MARIAN = Family(
    name="marian",
    prefix="model.",
    mark=r"(model\.)?decoder\.layers\.\d+\.encoder_attn\.q_proj\.weight",
    heads={"lm": "MarianMTModel"},
    rows=(
        TensorRow((TOKENS.format(side="decoder"),), SHARED, when=SHARED_TABLE),
        TensorRow((TOKENS.format(side="decoder"),), TARGET, when=OWN_TABLES),
        TensorRow(
            (TOKENS.format(side="encoder"),), "model.encoder.embed_tokens.weight", when=OWN_TABLES
        ),
        *side_rows("encoder"),
        *side_rows("decoder"),
        TensorRow(("head",), "lm_head.weight", TRANSPOSED),
        TensorRow(("bias",), "final_logits_bias", ROW),
    ),
    ignored=(
        Ignored(r"model\.(en|de)coder\.embed_tokens\.weight", "the shared embedding", SHARED),
        Ignored(r"lm_head\.weight", "the tied token embedding", (SHARED, TARGET)),
        Ignored(r"model\.(en|de)coder\.embed_positions\.weight", "sinusoids, constants"),
    ),
    structure={
        "architecture": "encoder_decoder",
        "norm": "layernorm",
        "norm_position": "post",
        "positions": "sinusoidal",
        "sinusoid_layout": "halves",
        "gated": False,
        "bias": True,
        "qkv_bias": True,
        "head_bias": True,
        "num_kv_heads": None,
        "head_dim": None,
    },
    fields={
        "source_vocab_size": ("vocab_size", REQUIRED),
        "vocab_size": ("decoder_vocab_size", None),
        "d_model": ("d_model", REQUIRED),
        "num_layers": ("decoder_layers", REQUIRED),
        "num_encoder_layers": ("encoder_layers", REQUIRED),
        "num_heads": ("decoder_attention_heads", REQUIRED),
        "d_ff": ("decoder_ffn_dim", REQUIRED),
        "max_seq_len": ("max_position_embeddings", 1024),
        "activation": ("activation_function", "gelu"),
        "scale_embeddings": ("scale_embedding", False),
        "share_embeddings": ("share_encoder_decoder_embeddings", True),
        "tie_embeddings": ("tie_word_embeddings", True),
        "decoder_start_id": ("decoder_start_token_id", 58100),
    },
    dropout=("dropout", "attention_dropout"),
    demands={
        "is_encoder_decoder": True,
        "add_final_layer_norm": False,
        "normalize_before": False,
        "normalize_embedding": False,
        "static_position_embeddings": True,
    },
    harmless="activation_dropout add_bias_logits classif_dropout decoder_layerdrop "
    "encoder_layerdrop extra_pos_embeddings force_bos_token_to_be_generated init_std is_decoder "
    "num_hidden_layers save_step",
    same={"encoder_attention_heads": "num_heads", "encoder_ffn_dim": "d_ff"},
    fallback={"vocab_size": "source_vocab_size"},
    generation={"forced_eos_token_id": 0},
)
BART = dataclasses.replace(
    MARIAN,
    name="bart",
    mark=r"(model\.)?encoder\.layernorm_embedding\.weight",
    heads={"lm": "BartForConditionalGeneration"},
    structure={
        **MARIAN.structure,
        "positions": "learned",
        "position_offset": 2,
        "sinusoid_layout": "interleaved",
        "embed_norm": True,
        "share_embeddings": True,
        "source_vocab_size": None,
    },
    fields={
        **{
            name: field
            for name, field in MARIAN.fields.items()
            if name not in ("source_vocab_size", "share_embeddings")
        },
        "vocab_size": ("vocab_size", REQUIRED),
        "decoder_start_id": ("decoder_start_token_id", 2),
    },
    demands={
        "is_encoder_decoder": True,
        "add_final_layer_norm": False,
        "normalize_before": False,
        "normalize_embedding": True,
        "static_position_embeddings": False,
    },
    ignored=MARIAN.ignored[:2],
    fallback={},
    limit_has_offset=False,
    generation={"forced_eos_token_id": 2},
)


T5_ATTENTION = {"query": "q", "key": "k", "value": "v", "output": "o"}
T5_FEED_FORWARD = (("up", "wi", False), ("up", "wi_1", True), ("gate", "wi_0", True))


def t5_side_rows(name: str, *attentions: tuple[str, str]) -> tuple[TensorRow, ...]:
    """The rows of one trunk of T5, whose attentions are called this here and that there."""
    ours, theirs = f"backbone/{name}/layers_{{i}}", f"{name}.block.{{i}}.layer"
    last = f"{theirs}.{len(attentions)}"
    feed_forward = f"{last}.DenseReluDense"
    bias = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"

    def kernel(path: str, tensor: str, when: tuple[str, bool] | None = None) -> TensorRow:
        return TensorRow((f"{ours}/{path}/kernel",), f"{tensor}.weight", TRANSPOSED, when=when)

    def scale(path: str, tensor: str) -> TensorRow:
        return TensorRow((f"{path}/scale",), f"{tensor}.weight")

    return (
        TensorRow((f"backbone/{name}/embed/relative",), bias),
        *(
            kernel(f"{part}/{leaf}", f"{theirs}.{place}.{attention}.{letter}")
            for place, (part, attention) in enumerate(attentions)
            for leaf, letter in T5_ATTENTION.items()
        ),
        *(
            scale(f"{ours}/{part}_norm", f"{theirs}.{place}.layer_norm")
            for place, (part, _) in enumerate(attentions)
        ),
        *(
            kernel(f"feed_forward/{leaf}", f"{feed_forward}.{part}", ("gated", gated))
            for leaf, part, gated in T5_FEED_FORWARD
        ),
        kernel("feed_forward/down", f"{feed_forward}.wo"),
        scale(f"{ours}/feed_forward_norm", f"{last}.layer_norm"),
        scale(f"backbone/{name}/final_norm", f"{name}.final_layer_norm"),
    )


SELF, CROSS = ("attention", "SelfAttention"), ("cross_attention", "EncDecAttention")
T5 = Family(
    name="t5",
    prefix="transformer.",
    mark=r"decoder\.block\.\d+\.layer\.1\.EncDecAttention\.q\.weight",
    heads={"lm": "T5ForConditionalGeneration"},
    rows=(
        TensorRow((TOKENS.format(side="decoder"),), "shared.weight"),
        *t5_side_rows("encoder", SELF),
        *t5_side_rows("decoder", SELF, CROSS),
        TensorRow(("head",), "lm_head.weight", TRANSPOSED),
    ),
    ignored=(
        Ignored(r"(en|de)coder\.embed_tokens\.weight", "the shared embedding", "shared.weight"),
        Ignored(r"lm_head\.weight", "the tied token embedding", "shared.weight"),
        Ignored(
            r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
            "unused, an error of the first checkpoints",
        ),
    ),
    structure={
        "architecture": "encoder_decoder",
        "norm": "rmsnorm",
        "norm_position": "pre",
        "positions": "relative",
        "bias": False,
        "qkv_bias": False,
        "scale_attention": False,
        "num_kv_heads": None,
        "source_vocab_size": None,
    },
    fields={
        "vocab_size": ("vocab_size", REQUIRED),
        "d_model": ("d_model", REQUIRED),
        "num_encoder_layers": ("num_layers", REQUIRED),
        "num_layers": ("num_decoder_layers", None),
        "num_heads": ("num_heads", REQUIRED),
        "head_dim": ("d_kv", 64),
        "d_ff": ("d_ff", REQUIRED),
        "max_seq_len": ("n_positions", 512),
        "relative_buckets": ("relative_attention_num_buckets", 32),
        "relative_distance": ("relative_attention_max_distance", 128),
        "activation": ("feed_forward_proj", "relu"),
        "gated": ("is_gated_act", False),
        "norm_eps": ("layer_norm_epsilon", 1e-6),
        "tie_embeddings": ("tie_word_embeddings", True),
        "scale_head": ("scale_decoder_outputs", None),
        "decoder_start_id": ("decoder_start_token_id", 0),
    },
    dropout=("dropout_rate",),
    demands={"is_encoder_decoder": True},
    harmless="dense_act_fn initializer_factor is_decoder num_hidden_layers output_past",
    fallback={"num_layers": "num_encoder_layers", "scale_head": "tie_embeddings"},
)
