"""The model section: sizes, structure and numerics of one transformer."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxlm.config.schema import Derived, Section, filled, option, require

# Heads that read one vector off an encoder for the whole sequence.
POOLED_HEADS = ("pretraining", "sequence_classification", "none")


@dataclass(frozen=True)
class ModelConfig(Section):
    """Sizes, structure and numerics of one transformer.

    Derived fields may be null; models are built from `resolved()`.
    """

    title: ClassVar[str] = "model"

    architecture: Literal["decoder", "encoder", "encoder_decoder"] = option(
        "decoder",
        "decoder: attends backwards; encoder: both ways; encoder_decoder: a decoder that also "
        "attends to an encoded source",
        role="structure",
    )
    head: Derived[
        Literal[
            "lm",
            "pretraining",
            "sequence_classification",
            "token_classification",
            "question_answering",
            "none",
        ]
    ] = option(
        None,
        "what is read off the hidden states; pretraining: lm and next sentence; none: they alone; "
        "null: what the task trains",
        role="head",
        told_by="task",
    )
    labels: tuple[str, ...] = option(
        (), "names of the classes; []: those in the data", role="head", told_by="task"
    )
    problem: Literal["single_label", "multi_label", "regression"] = option(
        "single_label", "what a sequence's label is", role="head"
    )
    preset: str | None = option(
        None, "named family and size whose values the other fields override", role="name"
    )
    vocab_size: Derived[int] = option(
        None,
        "number of tokens; null: the tokenizer's",
        "positive",
        role="structure",
        told_by="data",
    )
    source_vocab_size: Derived[int] = option(
        None,
        "number of the source's tokens, with embeddings of its own; null: vocab_size",
        "positive",
        role="structure",
        told_by="data",
    )
    d_model: int = option(128, "width of the residual stream", "positive", role="structure")
    num_layers: int = option(4, "number of blocks", "positive", role="structure")
    num_encoder_layers: Derived[int] = option(
        None,
        "number of an encoder_decoder's encoder blocks; null: num_layers",
        "positive",
        role="structure",
    )
    num_heads: int = option(4, "query heads", "positive", role="structure")
    num_kv_heads: Derived[int] = option(
        None, "key and value heads; null: num_heads", "positive", role="structure"
    )
    head_dim: Derived[int] = option(
        None, "width of one head; null: d_model / num_heads", "positive", role="structure"
    )
    d_ff: Derived[int] = option(
        None,
        "width of the feed-forward; null: 4 d_model, or gated 8/3 d_model to a multiple of 32",
        "positive",
        role="structure",
    )
    max_seq_len: Derived[int] = option(
        None, "context limit; null: data.seq_len", "positive", role="structure"
    )
    norm: Literal["layernorm", "rmsnorm"] = option(
        "layernorm", "kind of normalisation", role="structure"
    )
    norm_position: Literal["pre", "post"] = option(
        "pre", "before a sublayer or after its sum", role="structure"
    )
    final_norm: Derived[bool] = option(
        None, "a norm behind the last block; null: with norm_position pre", role="structure"
    )
    scale_embeddings: bool = option(
        False, "multiply token vectors by sqrt(d_model)", role="structure"
    )
    share_embeddings: bool = option(
        True, "source and target have one table of token vectors", role="structure"
    )
    embed_norm: bool = option(
        False, "normalise the embeddings before the first block", role="structure"
    )
    pooler: Derived[bool] = option(
        None,
        "a dense layer on what is pooled; null: with the encoder heads that pool",
        role="head",
        told_by="task",
    )
    pooler_activation: Literal["tanh", "relu"] = option(
        "tanh", "nonlinearity of the pooler", role="structure"
    )
    pooling: Literal["token", "mean"] = option(
        "token",
        "what a sequence is classified by: an encoder's first or a decoder's last token, or the "
        "mean of all",
        role="head",
    )
    num_token_types: int = option(
        0, "kinds of tokens, such as first and second sentence", "at least 0", role="structure"
    )
    positions: Literal["learned", "rotary", "sinusoidal", "relative", "none"] = option(
        "learned",
        "how positions enter the model; relative: a learned bias on scores by distance",
        role="structure",
    )
    relative_buckets: int = option(
        32, "relative positions: rows of the table of biases", "positive", role="structure"
    )
    relative_distance: int = option(
        128, "relative positions: distances from here on are alike", "positive", role="structure"
    )
    sinusoid_layout: Literal["interleaved", "halves"] = option(
        "interleaved",
        "sines and cosines of sinusoidal positions in turn, or all sines first",
        role="structure",
    )
    position_offset: int = option(
        0,
        "rows of learned positions before that of the first token",
        "at least 0",
        role="structure",
    )
    activation: Literal["gelu_tanh", "gelu", "silu", "relu", "relu_squared"] = option(
        "gelu_tanh", "feed-forward nonlinearity", role="structure"
    )
    gated: bool = option(
        False, "multiply the activation by a second projection (GLU)", role="structure"
    )
    bias: bool = option(True, "biases in dense layers and layer norms", role="structure")
    qkv_bias: Derived[bool] = option(
        None, "biases of queries, keys and values; null: bias", role="structure"
    )
    qk_norm: bool = option(False, "RMS-normalise queries and keys per head", role="structure")
    tie_embeddings: bool = option(
        True, "the output head shares the token embedding", role="structure"
    )
    scale_attention: bool = option(True, "divide scores by the root of head_dim", role="structure")
    scale_head: bool = option(
        False, "divide what the head reads by the root of d_model", role="structure"
    )
    head_bias: bool = option(
        False, "a bias on the logits of a decoder or encoder_decoder", role="structure"
    )
    zero_init_head: bool = option(False, "an untied head starts at zero")
    decoder_start_id: Derived[int] = option(
        None,
        "the token that an encoder_decoder's target follows; null: the tokenizer's bos, else pad",
        "at least 0",
        role="structure",
        told_by="data",
    )
    norm_eps: float = option(1e-5, "epsilon inside the norms", "positive", role="structure")
    rope_theta: float = option(
        10000.0, "base wavelength of rotary positions", "positive", role="structure"
    )
    rope_scaling: Literal["none", "linear", "llama3"] = option(
        "none",
        "how rotary positions reach past the trained context: all slower, or only the slow ones",
        role="structure",
    )
    rope_factor: float = option(
        1.0, "how much slower scaled rotary positions turn", "positive", role="structure"
    )
    rope_low_freq_factor: float = option(
        1.0,
        "llama3: planes that turn less often in the original context are slowed in full",
        role="structure",
    )
    rope_high_freq_factor: float = option(
        4.0,
        "llama3: planes that turn more often in the original context stay as they are",
        role="structure",
    )
    rope_original_len: int = option(
        8192, "llama3: the original context", "positive", role="structure"
    )
    dropout: float = option(0.0, "rate on embeddings, attention and residual branches", "in [0, 1)")
    compute_dtype: Derived[Literal["float32", "bfloat16"]] = option(
        None,
        "type of activations; null: bfloat16 on GPU and TPU, else float32",
        role="execution",
        told_by="device",
    )
    scan_layers: bool = option(
        False, "scan over the blocks: compiles faster when deep", role="execution"
    )
    remat: bool = option(
        False, "recompute activations in the backward pass to save memory", role="execution"
    )

    def resolved(self) -> "ModelConfig":
        """The config with its derived fields filled in; those that data or device tell stay null.

        Raises ConfigError where fields contradict each other.
        """
        whole = self if self.head_dim is not None else self._with_head_dim()
        whole = filled(whole, head="lm", num_kv_heads=self.num_heads, qkv_bias=self.bias)
        whole = filled(whole, final_norm=self.norm_position == "pre")
        if self.architecture == "encoder_decoder":
            whole = filled(
                whole, num_encoder_layers=self.num_layers, source_vocab_size=self.vocab_size
            )
        whole = filled(
            whole,
            d_ff=32 * math.ceil(8 * self.d_model / 96) if self.gated else 4 * self.d_model,
            pooler=self.architecture == "encoder" and whole.head in POOLED_HEADS,
        )
        whole._check_together()
        return whole

    def _with_head_dim(self) -> "ModelConfig":
        require(
            self.d_model % self.num_heads == 0,
            "model.d_model",
            f"a multiple of num_heads ({self.num_heads}) unless head_dim is given",
            self.d_model,
        )
        return filled(self, head_dim=self.d_model // self.num_heads)

    def _check_together(self) -> None:
        """Raise ConfigError where fields of a resolved config contradict each other."""
        require(
            self.num_heads % self.num_kv_heads == 0,
            "model.num_kv_heads",
            f"a divisor of num_heads ({self.num_heads})",
            self.num_kv_heads,
        )
        require(
            self.positions != "rotary" or self.head_dim % 2 == 0,
            "model.head_dim",
            "even with rotary positions",
            self.head_dim,
        )
        require(
            self.rope_low_freq_factor < self.rope_high_freq_factor,
            "model.rope_high_freq_factor",
            f"above rope_low_freq_factor ({self.rope_low_freq_factor})",
            self.rope_high_freq_factor,
        )
        both = self.architecture == "encoder_decoder"
        for name in ("num_encoder_layers", "source_vocab_size", "decoder_start_id"):
            value = getattr(self, name)
            require(both or value is None, f"model.{name}", "null but in an encoder_decoder", value)
        require(not both or self.head == "lm", "model.head", "lm in an encoder_decoder", self.head)
        require(
            not both
            or not self.share_embeddings
            or self.source_vocab_size in (None, self.vocab_size),
            "model.share_embeddings",
            "false where source_vocab_size differs from vocab_size",
            self.share_embeddings,
        )
        require(
            self.head != "pretraining" or self.architecture == "encoder",
            "model.head",
            "an encoder's if it is pretraining; a decoder's is lm",
            self.head,
        )
        require(
            bool(self.labels) or not self.head.endswith("_classification"),
            "model.labels",
            f"given for {self.head}",
            self.labels,
        )
        require(
            not (self.zero_init_head and self.tie_embeddings),
            "model.zero_init_head",
            "false when tie_embeddings is true (the embedding cannot start at zero)",
            self.zero_init_head,
        )
