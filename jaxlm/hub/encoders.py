"""Conversion tables of the encoders: BERT and RoBERTa."""

import dataclasses

from jaxlm.hub.tables import HARMLESS, REQUIRED, TRANSPOSED, Family, Ignored, TensorRow, dense, norm

BLOCK = "backbone/layers_{i}"
EMBEDDINGS = {"tokens": "word", "positions": "position", "types": "token_type"}
# Models with this head also read checkpoints that hold other heads.
LM = ("lm",)


def trunk(prefix: str) -> tuple[TensorRow, ...]:
    block = prefix + "encoder.layer.{i}"
    return (
        *(
            TensorRow((f"backbone/embed/{ours}",), f"{prefix}embeddings.{theirs}_embeddings.weight")
            for ours, theirs in EMBEDDINGS.items()
        ),
        *norm("backbone/embed/norm", f"{prefix}embeddings.LayerNorm"),
        *dense(f"{BLOCK}/attention/query", f"{block}.attention.self.query"),
        *dense(f"{BLOCK}/attention/key", f"{block}.attention.self.key"),
        *dense(f"{BLOCK}/attention/value", f"{block}.attention.self.value"),
        *dense(f"{BLOCK}/attention/output", f"{block}.attention.output.dense"),
        *norm(f"{BLOCK}/attention_norm", f"{block}.attention.output.LayerNorm"),
        *dense(f"{BLOCK}/feed_forward/up", f"{block}.intermediate.dense"),
        *dense(f"{BLOCK}/feed_forward/down", f"{block}.output.dense"),
        *norm(f"{BLOCK}/feed_forward_norm", f"{block}.output.LayerNorm"),
    )


BERT = Family(
    name="bert",
    prefix="bert.",
    heads={
        "pretraining": "BertForPreTraining",
        "lm": "BertForMaskedLM",
        "sequence_classification": "BertForSequenceClassification",
        "token_classification": "BertForTokenClassification",
        "question_answering": "BertForQuestionAnswering",
        "none": "BertModel",
    },
    rows=(
        *trunk("bert."),
        *dense("pooler/dense", "bert.pooler.dense"),
        *dense("transform", "cls.predictions.transform.dense"),
        *norm("transform_norm", "cls.predictions.transform.LayerNorm"),
        TensorRow(("bias",), "cls.predictions.bias"),
        TensorRow(("head",), "cls.predictions.decoder.weight", TRANSPOSED),
        *dense("next_sentence", "cls.seq_relationship"),
        *dense("classifier", "qa_outputs", heads=("question_answering",)),
        *dense(
            "classifier", "classifier", heads=("sequence_classification", "token_classification")
        ),
    ),
    ignored=(
        Ignored(r".*embeddings\.position_ids", "counts from 0, a constant"),
        Ignored(
            r"cls\.predictions\.decoder\.weight",
            "the tied token embedding",
            "bert.embeddings.word_embeddings.weight",
        ),
        Ignored(r"cls\.predictions\.decoder\.bias", "the head's bias", "cls.predictions.bias"),
        Ignored(r"(bert\.pooler|cls\.seq_relationship)\..*", "the next-sentence head", heads=LM),
    ),
    structure={
        "architecture": "encoder",
        "norm": "layernorm",
        "norm_position": "post",
        "positions": "learned",
        "position_offset": 0,
        "embed_norm": True,
        "gated": False,
        "bias": True,
        "qkv_bias": True,
        "qk_norm": False,
        "num_kv_heads": None,
        "head_dim": None,
    },
    fields={
        "vocab_size": ("vocab_size", REQUIRED),
        "d_model": ("hidden_size", REQUIRED),
        "num_layers": ("num_hidden_layers", REQUIRED),
        "num_heads": ("num_attention_heads", REQUIRED),
        "d_ff": ("intermediate_size", REQUIRED),
        "max_seq_len": ("max_position_embeddings", 512),
        "num_token_types": ("type_vocab_size", 2),
        "activation": ("hidden_act", "gelu"),
        "norm_eps": ("layer_norm_eps", 1e-12),
        "tie_embeddings": ("tie_word_embeddings", True),
    },
    dropout=("hidden_dropout_prob", "attention_probs_dropout_prob"),
    demands={
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
        "is_encoder_decoder": False,
    },
    # Attributes of published files that transformers does not read.
    harmless=HARMLESS
    + "directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers "
    "pooler_size_per_head pooler_type",
)

ROBERTA = dataclasses.replace(
    BERT,
    name="roberta",
    prefix="roberta.",
    heads={
        head: name.replace("Bert", "Roberta")
        for head, name in BERT.heads.items()
        if head != "pretraining"
    },
    rows=(
        *trunk("roberta."),
        *dense("pooler/dense", "classifier.dense", heads=("sequence_classification",)),
        *dense("pooler/dense", "roberta.pooler.dense", heads=("none",)),
        *dense("transform", "lm_head.dense"),
        *norm("transform_norm", "lm_head.layer_norm"),
        TensorRow(("bias",), "lm_head.bias"),
        TensorRow(("head",), "lm_head.decoder.weight", TRANSPOSED),
        *dense("classifier", "classifier.out_proj", heads=("sequence_classification",)),
        *dense("classifier", "classifier", heads=("token_classification",)),
        *dense("classifier", "qa_outputs", heads=("question_answering",)),
    ),
    ignored=(
        Ignored(r".*embeddings\.position_ids", "counts from 0, a constant"),
        Ignored(
            r"lm_head\.decoder\.weight",
            "the tied token embedding",
            "roberta.embeddings.word_embeddings.weight",
        ),
        Ignored(r"lm_head\.decoder\.bias", "the head's bias", "lm_head.bias"),
        Ignored(r"roberta\.pooler\..*", "the pooler of another head", heads=LM),
    ),
    structure={**BERT.structure, "position_offset": 2},
    demands={**BERT.demands, "pad_token_id": 1},  # positions count from the row after it
)
