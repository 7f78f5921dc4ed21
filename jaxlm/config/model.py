"""The settings of a model: sizes, structure and numerics."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from jaxlm.config.rules import DERIVED, Derived, check, fill, require

# Heads that look at an encoder's first token.
POOLED_HEADS = ("pretraining", "sequence_classification", "none")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes, structure and numerics of one transformer."""

    architecture: Annotated[
        Literal["decoder", "encoder"], "decoder: attends backwards; encoder: both ways"
    ] = "decoder"
    head: Annotated[
        Literal[
            "lm",
            "pretraining",
            "sequence_classification",
            "token_classification",
            "question_answering",
            "none",
        ],
        "what is read off the hidden states; pretraining: lm and next sentence; none: they alone",
    ] = "lm"
    labels: Annotated[tuple[str, ...], "names of the classes of a classification head"] = ()
    problem: Annotated[
        Literal["single_label", "multi_label", "regression"], "what a sequence's label is"
    ] = "single_label"
    preset: Annotated[
        str | None, "named family and size whose values the other fields override"
    ] = None
    vocab_size: Annotated[Derived[int], "number of tokens; null: the tokenizer's"] = DERIVED
    d_model: Annotated[int, "width of the residual stream"] = 128
    num_layers: Annotated[int, "number of blocks"] = 4
    num_heads: Annotated[int, "query heads"] = 4
    num_kv_heads: Annotated[Derived[int], "key and value heads; null: num_heads"] = DERIVED
    head_dim: Annotated[Derived[int], "width of one head; null: d_model / num_heads"] = DERIVED
    d_ff: Annotated[
        Derived[int],
        "width of the feed-forward; null: 4 d_model, or gated 8/3 d_model to a multiple of 32",
    ] = DERIVED
    max_seq_len: Annotated[Derived[int], "context limit; null: data.seq_len"] = DERIVED
    norm: Annotated[Literal["layernorm", "rmsnorm"], "kind of normalisation"] = "layernorm"
    norm_position: Annotated[Literal["pre", "post"], "before a sublayer or after its sum"] = "pre"
    embed_norm: Annotated[bool, "normalise the embeddings before the first block"] = False
    pooler: Annotated[
        Derived[bool],
        "a dense tanh layer on what is pooled; null: with the encoder heads that pool",
    ] = DERIVED
    pooling: Annotated[
        Literal["token", "mean"],
        "what a sequence is classified by: an encoder's first or a decoder's last token, or the "
        "mean of all",
    ] = "token"
    num_token_types: Annotated[int, "kinds of tokens, such as first and second sentence"] = 0
    positions: Annotated[
        Literal["learned", "rotary", "sinusoidal", "none"], "how positions are told"
    ] = "learned"
    position_offset: Annotated[int, "rows of learned positions before that of the first"] = 0
    activation: Annotated[
        Literal["gelu_tanh", "gelu", "silu", "relu", "relu_squared"], "feed-forward nonlinearity"
    ] = "gelu_tanh"
    gated: Annotated[bool, "multiply the activation by a second projection (GLU)"] = False
    bias: Annotated[bool, "biases in dense layers and layer norms"] = True
    qkv_bias: Annotated[Derived[bool], "biases of queries, keys and values; null: bias"] = DERIVED
    qk_norm: Annotated[bool, "RMS-normalise queries and keys per head"] = False
    tie_embeddings: Annotated[bool, "the output head shares the token embedding"] = True
    zero_init_head: Annotated[bool, "an untied head starts at zero"] = False
    norm_eps: Annotated[float, "epsilon inside the norms"] = 1e-5
    rope_theta: Annotated[float, "base wavelength of rotary positions"] = 10000.0
    rope_scaling: Annotated[
        Literal["none", "linear", "llama3"],
        "how rotary positions reach past what was trained: all slower, or only the slow ones",
    ] = "none"
    rope_factor: Annotated[float, "how much slower scaled rotary positions turn"] = 1.0
    rope_low_freq_factor: Annotated[
        float, "llama3: planes that turn less often in the original context are slowed in full"
    ] = 1.0
    rope_high_freq_factor: Annotated[
        float, "llama3: planes that turn more often in the original context stay as they are"
    ] = 4.0
    rope_original_len: Annotated[int, "llama3: the original context"] = 8192
    dropout: Annotated[float, "rate on embeddings, attention and residual branches"] = 0.0
    compute_dtype: Annotated[
        Derived[Literal["float32", "bfloat16"]],
        "type of activations; null: bfloat16 on GPU and TPU, else float32",
    ] = DERIVED
    scan_layers: Annotated[bool, "scan over the blocks: compiles faster when deep"] = False
    remat: Annotated[bool, "recompute activations in the backward pass to save memory"] = False

    def resolved(self) -> "ModelConfig":
        """The config with every field that others determine filled in."""
        return self

    def __post_init__(self):
        check(self, "model", "positive", "d_model", "num_layers", "num_heads")
        require(
            self.head_dim is not None or self.d_model % self.num_heads == 0,
            "model.d_model",
            f"a multiple of num_heads ({self.num_heads}) unless head_dim is given",
            self.d_model,
        )
        gated_d_ff = 32 * math.ceil(8 * self.d_model / 3 / 32)
        fill(
            self,
            num_kv_heads=self.num_heads,
            head_dim=self.d_model // self.num_heads,
            d_ff=gated_d_ff if self.gated else 4 * self.d_model,
            qkv_bias=self.bias,
            pooler=self.architecture == "encoder" and self.head in POOLED_HEADS,
        )
        check(self, "model", "positive", "vocab_size", "num_kv_heads", "head_dim", "d_ff")
        check(self, "model", "positive", "max_seq_len", "norm_eps", "rope_theta")
        check(self, "model", "positive", "rope_factor", "rope_original_len")
        check(self, "model", "at least 0", "num_token_types", "position_offset")
        check(self, "model", "in [0, 1)", "dropout")
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
