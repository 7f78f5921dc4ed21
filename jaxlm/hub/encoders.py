"""Conversion tables of the encoders: BERT, DistilBERT, RoBERTa, XLM-RoBERTa and CamemBERT."""

import dataclasses

from jaxlm.hub.tables import NO_MARK, REQUIRED, TRANSPOSED, Family, Ignored, TensorRow, dense, norm

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
    mark=r"(bert\.)?encoder\.layer\.\d+\.attention\.self\.query\.weight",
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
    demands={"position_embedding_type": "absolute", "is_decoder": False},
    # Attributes of published files that transformers does not read.
    harmless="directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers "
    "pooler_size_per_head pooler_type",
)

ROBERTA = dataclasses.replace(
    BERT,
    name="roberta",
    prefix="roberta.",
    mark=r"roberta\..*|lm_head\.dense\.weight",
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
    structure={k: v for k, v in BERT.structure.items() if k != "position_offset"},
    first_pad_id=1,
)


def like_roberta(name: str, class_prefix: str) -> Family:
    """A family whose tensors and attributes are RoBERTa's, under class names of its own."""
    heads = {head: kind.replace("Roberta", class_prefix) for head, kind in ROBERTA.heads.items()}
    return dataclasses.replace(ROBERTA, name=name, mark=NO_MARK, heads=heads)


XLM_ROBERTA = like_roberta("xlm-roberta", "XLMRoberta")
CAMEMBERT = like_roberta("camembert", "Camembert")

DISTILBERT_BLOCK = "distilbert.transformer.layer.{i}"
DISTILBERT = dataclasses.replace(
    BERT,
    name="distilbert",
    prefix="distilbert.",
    mark=r"(distilbert\.)?transformer\.layer\.\d+\.attention\.q_lin\.weight",
    heads={
        "lm": "DistilBertForMaskedLM",
        "sequence_classification": "DistilBertForSequenceClassification",
        "token_classification": "DistilBertForTokenClassification",
        "question_answering": "DistilBertForQuestionAnswering",
        "none": "DistilBertModel",
    },
    rows=(
        TensorRow(("backbone/embed/tokens",), "distilbert.embeddings.word_embeddings.weight"),
        TensorRow(
            ("backbone/embed/positions",), "distilbert.embeddings.position_embeddings.weight"
        ),
        *norm("backbone/embed/norm", "distilbert.embeddings.LayerNorm"),
        *dense(f"{BLOCK}/attention/query", f"{DISTILBERT_BLOCK}.attention.q_lin"),
        *dense(f"{BLOCK}/attention/key", f"{DISTILBERT_BLOCK}.attention.k_lin"),
        *dense(f"{BLOCK}/attention/value", f"{DISTILBERT_BLOCK}.attention.v_lin"),
        *dense(f"{BLOCK}/attention/output", f"{DISTILBERT_BLOCK}.attention.out_lin"),
        *norm(f"{BLOCK}/attention_norm", f"{DISTILBERT_BLOCK}.sa_layer_norm"),
        *dense(f"{BLOCK}/feed_forward/up", f"{DISTILBERT_BLOCK}.ffn.lin1"),
        *dense(f"{BLOCK}/feed_forward/down", f"{DISTILBERT_BLOCK}.ffn.lin2"),
        *norm(f"{BLOCK}/feed_forward_norm", f"{DISTILBERT_BLOCK}.output_layer_norm"),
        *dense("pooler/dense", "pre_classifier", heads=("sequence_classification",)),
        *dense("transform", "vocab_transform"),
        *norm("transform_norm", "vocab_layer_norm"),
        TensorRow(("bias",), "vocab_projector.bias"),
        TensorRow(("head",), "vocab_projector.weight", TRANSPOSED),
        *dense("classifier", "qa_outputs", heads=("question_answering",)),
        *dense(
            "classifier", "classifier", heads=("sequence_classification", "token_classification")
        ),
    ),
    ignored=(
        Ignored(r".*embeddings\.position_ids", "counts from 0, a constant"),
        Ignored(
            r"vocab_projector\.weight",
            "the tied token embedding",
            "distilbert.embeddings.word_embeddings.weight",
        ),
    ),
    structure={
        **BERT.structure,
        "num_token_types": 0,
        "norm_eps": 1e-12,
        "pooler_activation": "relu",
    },
    fields={
        "vocab_size": ("vocab_size", REQUIRED),
        "d_model": ("dim", REQUIRED),
        "num_layers": ("n_layers", REQUIRED),
        "num_heads": ("n_heads", REQUIRED),
        "d_ff": ("hidden_dim", REQUIRED),
        "max_seq_len": ("max_position_embeddings", 512),
        "activation": ("activation", "gelu"),
        "tie_embeddings": ("tie_word_embeddings", True),
    },
    dropout=("dropout", "attention_dropout"),
    demands={"is_decoder": False},
    # sinusoidal_pos_embds says how stored positions were first filled.
    harmless="qa_dropout seq_classif_dropout sinusoidal_pos_embds tie_weights_",
    pooled_heads=("sequence_classification",),
)
