"""The model section: sizes, structure and numerics of one transformer."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxlm.config.schema import Derived, Section, filled, option, require, structure

# Heads that pool an encoder's hidden states into one vector a sequence.
POOLED_HEADS = ("pretraining", "sequence_classification", "none")


@dataclass(frozen=True)
class ModelConfig(Section):
    """Sizes, structure and numerics of one transformer.

    Derived fields may be null; models are built from `resolved()`.
    """

    title: ClassVar[str] = "model"

    architecture: Literal["decoder", "encoder", "encoder_decoder"] = structure(
        "decoder",
        "decoder: causal attention; encoder: attention in both directions; encoder_decoder: a "
        "decoder that also attends to an encoded source",
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
        "what is computed from the hidden states; pretraining: lm and next sentence; none: "
        "nothing; null: set by the task",
        role="head",
        filled_by="task",
    )
    labels: tuple[str, ...] = option(
        (), "names of the classes; []: those in the data", role="head", filled_by="task"
    )
    problem: Literal["single_label", "multi_label", "regression"] = option(
        "single_label", "kind of label that a sequence has", role="head"
    )
    preset: str | None = option(
        None, "named family and size whose values the other fields override", role="name"
    )
    vocab_size: Derived[int] = structure(
        None, "number of tokens; null: the tokenizer's", "positive", filled_by="data"
    )
    source_vocab_size: Derived[int] = structure(
        None,
        "number of the source's tokens, with embeddings of its own; null: vocab_size",
        "positive",
        filled_by="data",
    )
    d_model: int = structure(128, "width of the residual stream", "positive")
    # Far above any model there is, and each takes its time to trace.
    num_layers: int = structure(4, "number of blocks", "in [1, 1000]")
    num_encoder_layers: Derived[int] = structure(
        None, "number of an encoder_decoder's encoder blocks; null: num_layers", "in [1, 1000]"
    )
    num_heads: int = structure(4, "query heads", "positive")
    num_kv_heads: Derived[int] = structure(None, "key and value heads; null: num_heads", "positive")
    head_dim: Derived[int] = structure(
        None, "width of one head; null: d_model / num_heads", "positive"
    )
    d_ff: Derived[int] = structure(
        None,
        "width of the feed-forward; null: 4 d_model, or gated 8/3 d_model to a multiple of 32",
        "positive",
    )
    max_seq_len: Derived[int] = structure(None, "context limit; null: data.seq_len", "positive")
    norm: Literal["layernorm", "rmsnorm"] = structure("layernorm", "kind of normalisation")
    norm_position: Literal["pre", "post"] = structure("pre", "before a sublayer or after its sum")
    final_norm: Derived[bool] = structure(
        None, "a norm behind the last block; null: with norm_position pre"
    )
    scale_embeddings: bool = structure(False, "multiply token vectors by sqrt(d_model)")
    share_embeddings: bool = structure(True, "source and target have one table of token vectors")
    embed_norm: bool = structure(False, "normalise the embeddings before the first block")
    pooler: Derived[bool] = option(
        None,
        "dense layer on the pooled vector; null: true for encoder heads that pool",
        role="head",
        filled_by="task",
    )
    pooler_activation: Literal["tanh", "relu"] = structure("tanh", "nonlinearity of the pooler")
    pooling: Literal["token", "mean"] = option(
        "token",
        "what a sequence is classified from: an encoder's first or a decoder's last token, or the "
        "mean over all tokens",
        role="head",
    )
    num_token_types: int = structure(
        0, "token types, such as first and second sentence", "at least 0"
    )
    positions: Literal["learned", "rotary", "sinusoidal", "relative", "none"] = structure(
        "learned",
        "how positions enter the model; relative: a learned bias on scores by distance",
    )
    relative_buckets: int = structure(
        32, "relative positions: rows of the table of biases", "positive"
    )
    relative_distance: int = structure(
        128, "relative positions: distances from here on are alike", "positive"
    )
    sinusoid_layout: Literal["interleaved", "halves"] = structure(
        "interleaved", "sines and cosines of sinusoidal positions in turn, or all sines first"
    )
    position_offset: int = structure(0, "index of the first token's learned position", "at least 0")
    activation: Literal["gelu_tanh", "gelu", "silu", "relu", "relu_squared"] = structure(
        "gelu_tanh", "feed-forward nonlinearity"
    )
    gated: bool = structure(False, "multiply the activation by a second projection (GLU)")
    bias: bool = structure(True, "biases in dense layers and layer norms")
    qkv_bias: Derived[bool] = structure(None, "biases of queries, keys and values; null: bias")
    qk_norm: bool = structure(False, "RMS-normalise queries and keys per head")
    tie_embeddings: bool = structure(True, "the output head shares the token embedding")
    scale_attention: bool = structure(True, "divide scores by the root of head_dim")
    scale_head: bool = structure(False, "divide what the head reads by the root of d_model")
    head_bias: bool = structure(False, "a bias on the logits of a decoder or encoder_decoder")
    zero_init_head: bool = option(False, "an untied head starts at zero")
    decoder_start_id: Derived[int] = structure(
        None,
        "the token that an encoder_decoder's target follows; null: the tokenizer's bos, else pad",
        "at least 0",
        filled_by="data",
    )
    norm_eps: float = structure(1e-5, "epsilon inside the norms", "positive")
    rope_theta: float = structure(10000.0, "base wavelength of rotary positions", "positive")
    rope_scaling: Literal["none", "linear", "llama3"] = structure(
        "none",
        "how rotary positions extend past the trained context; linear: all frequencies are "
        "lowered; llama3: only the low ones",
    )
    rope_factor: float = structure(
        1.0, "divisor of the rotary frequencies that are lowered", "positive"
    )
    rope_low_freq_factor: float = structure(
        1.0,
        "llama3: frequencies with fewer turns in the original context are divided by rope_factor",
    )
    rope_high_freq_factor: float = structure(
        4.0, "llama3: frequencies with more turns in the original context are unchanged"
    )
    rope_original_len: int = structure(8192, "llama3: length of the original context", "positive")
    dropout: float = option(
        0.0, "dropout rate of embeddings, attention and residual branches", "in [0, 1)"
    )
    compute_dtype: Derived[Literal["float32", "bfloat16"]] = option(
        None,
        "type of activations; null: bfloat16 on GPU and TPU, else float32",
        role="execution",
        filled_by="device",
    )
    scan_layers: bool = option(
        False, "scan over the blocks: compiles deep models faster", role="execution"
    )
    remat: Literal["none", "dots", "full"] = option(
        "none",
        "what of a block the backward pass computes again to save memory: nothing, all but matrix "
        "products, all",
        role="execution",
        formerly={"false": "none", "true": "full"},
    )
    loss_chunk: int | None = option(
        None,
        "positions of a row whose logits the loss holds at once; null: so many that they take no "
        "more than 256 MB",
        "positive",
        role="execution",
    )

    def __post_init__(self):
        super().__post_init__()
        once = len(set(self.labels)) == len(self.labels)
        require(once, "model.labels", "names that differ", list(self.labels))

    def resolved(self) -> "ModelConfig":
        """The config with its derived fields filled in, except those from the data or the device.

        Raises: ConfigError where fields contradict each other.
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
            self.positions == "rotary" or self.rope_scaling == "none",
            "model.rope_scaling",
            f"none with {self.positions} positions, as it is for rotary ones",
            self.rope_scaling,
        )
        require(
            self.rope_scaling != "none" or self.rope_factor == 1,
            "model.rope_factor",
            "1 unless rope_scaling says how positions are scaled",
            self.rope_factor,
        )
        require(
            not self.pooler or self.architecture == "encoder",
            "model.pooler",
            "false or null for a decoder",
            self.pooler,
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
            "lm for a decoder, as only an encoder has the head pretraining",
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
