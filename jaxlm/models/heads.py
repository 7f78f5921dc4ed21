"""Models over a trunk, one for each architecture and head; `make_model` builds any of them."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import ModelConfig
from jaxlm.models.autoregressive import CausalLM, Seq2SeqLM
from jaxlm.models.trunk import Decoder, Encoder, Trunk
from jaxlm.nn.block import AttendingModule
from jaxlm.nn.int8 import matmul, weight
from jaxlm.nn.layers import ACTIVATIONS, ConfiguredModule, Dense, Dropout, Norm, kernel_init

TRUNKS: dict[str, type[Trunk]] = {"decoder": Decoder, "encoder": Encoder}


class Pooler(ConfiguredModule):
    """A dense layer on the vector that stands for a sequence, tanh or relu after it.

    Devlin et al. 2018; relu: Sanh et al. 2019.
    """

    @nn.compact
    def __call__(self, vector: Float[Array, "B D"]) -> Float[Array, "B D"]:
        activation = nn.tanh if self.config.pooler_activation == "tanh" else nn.relu
        return activation(Dense(self.config, self.config.d_model, True, name="dense")(vector))


class MaskedLM(AttendingModule):
    """Logits (B, T, V) in fp32 for the token at each position (Devlin et al. 2018)."""

    def setup(self):
        config = self.config
        self.backbone = Encoder(config, self.attention)
        self.transform = Dense(config, config.d_model, config.bias)
        self.transform_norm = Norm(config)
        if config.bias:
            self.bias = self.param("bias", nn.initializers.zeros, (config.vocab_size,))
        if not config.tie_embeddings:
            shape = (config.d_model, config.vocab_size)
            self.unembed = weight(self, "head", kernel_init(config), shape)
        if config.head == "pretraining":
            self.pooler = Pooler(config)
            self.next = Dense(config, 2, True, name="next_sentence")

    def __call__(
        self, ids: Int[Array, "B T"], **keywords
    ) -> (
        Float[Array, "B T V={self.config.vocab_size}"]
        | tuple[Float[Array, "B T V={self.config.vocab_size}"], Float[Array, "B 2"]]
    ):
        """Logits for every position; keywords as for `Trunk.__call__`.

        With the head `pretraining` also the logits of `next_sentence`.
        """
        hidden = self.backbone(ids, **keywords)
        logits = self.head(hidden)
        if self.config.head == "pretraining":
            return logits, self.next_sentence(hidden)
        return logits

    def hidden(
        self, ids: Int[Array, "B T"], **keywords
    ) -> Float[Array, "B T D={self.config.d_model}"]:
        """Final hidden states, for a head at chosen positions only."""
        return self.backbone(ids, **keywords)

    def head(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V={self.config.vocab_size}"]:
        """Logits of hidden states: dense, activation, norm, then the token vectors."""
        config = self.config
        x = self.transform_norm(ACTIVATIONS[config.activation](self.transform(hidden)))
        if config.tie_embeddings:
            logits = self.backbone.embed.attend(x)
        else:
            logits = matmul(x, self.unembed, jnp.float32)
        return logits + self.bias if config.bias else logits

    def next_sentence(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B 2"]:
        """Logits in fp32; class 0: the second sentence follows the first, class 1: it does not."""
        return self.next(self.pooler(hidden[:, 0])).astype(jnp.float32)


class BareModel(AttendingModule):
    """A trunk without a head: hidden states (B, T, D), and `pooled` vectors of first tokens."""

    def setup(self):
        self.backbone = TRUNKS[self.config.architecture](self.config, self.attention)
        if self.config.pooler:
            self.pooler = Pooler(self.config)

    def __call__(
        self, ids: Int[Array, "B T"], **keywords
    ) -> Float[Array, "B T D={self.config.d_model}"]:
        """Final hidden states; keywords as for `Trunk.__call__`."""
        hidden = self.backbone(ids, **keywords)
        if self.config.pooler and self.is_initializing():
            self.pooler(hidden[:, 0])
        return hidden

    def pooled(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B D"]:
        """The pooler's vector of hidden states."""
        return self.pooler(hidden[:, 0])


class SequenceClassifier(AttendingModule):
    """Logits (B, C) in fp32 of C labels, from one vector a sequence.

    The vector is that of an encoder's first or a decoder's last token, or the mean of all.
    """

    @nn.compact
    def __call__(
        self,
        ids: Int[Array, "B T"],
        *,
        attention_mask: Bool[Array, "B T"] | Int[Array, "B T"] | None = None,
        deterministic: bool = True,
        **keywords,
    ) -> Float[Array, "B C={len(self.config.labels)}"]:
        """Keywords as for `Trunk.__call__`; a decoder's last token is the last unmasked one."""
        config = self.config
        backbone = TRUNKS[config.architecture](config, self.attention, name="backbone")
        keywords |= {"attention_mask": attention_mask, "deterministic": deterministic}
        hidden = backbone(ids, **keywords)
        decoder = config.architecture == "decoder"
        if config.pooling == "mean":
            pooled = mean_of_tokens(hidden, attention_mask)
        else:
            pooled = last_token(hidden, attention_mask) if decoder else hidden[:, 0]
        if config.pooler:
            pooled = Pooler(config, name="pooler")(pooled)
        pooled = Dropout(config.dropout)(pooled, deterministic)
        # Hugging Face's decoders classify without a bias.
        logits = Dense(config, len(config.labels), not decoder, name="classifier")(pooled)
        return logits.astype(jnp.float32)


class TokenClassifier(AttendingModule):
    """Logits (B, T, C) in fp32 of C labels for every token."""

    @nn.compact
    def __call__(
        self, ids: Int[Array, "B T"], *, deterministic: bool = True, **keywords
    ) -> Float[Array, "B T C={len(self.config.labels)}"]:
        """Keywords as for `Trunk.__call__`."""
        config = self.config
        backbone = TRUNKS[config.architecture](config, self.attention, name="backbone")
        hidden = backbone(ids, deterministic=deterministic, **keywords)
        hidden = Dropout(config.dropout)(hidden, deterministic)
        logits = Dense(config, len(config.labels), True, name="classifier")(hidden)
        return logits.astype(jnp.float32)


class QuestionAnswerer(AttendingModule):
    """Logits in fp32 of where an answer starts (B, T) and of where it ends (B, T)."""

    @nn.compact
    def __call__(
        self, ids: Int[Array, "B T"], **keywords
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """Keywords as for `Trunk.__call__`."""
        config = self.config
        backbone = TRUNKS[config.architecture](config, self.attention, name="backbone")
        hidden = backbone(ids, **keywords)
        logits = Dense(config, 2, True, name="classifier")(hidden).astype(jnp.float32)
        return logits[:, :, 0], logits[:, :, 1]


def mean_of_tokens(
    hidden: Float[Array, "B T D"], attention_mask: Bool[Array, "B T"] | Int[Array, "B T"] | None
) -> Float[Array, "B D"]:
    """The mean of the states at each row's unmasked positions, in fp32."""
    if attention_mask is None:
        return hidden.mean(axis=1)
    weights = attention_mask.astype(jnp.float32)[:, :, None]
    return (hidden.astype(jnp.float32) * weights).sum(axis=1) / weights.sum(axis=1)


def last_token(
    hidden: Float[Array, "B T D"], attention_mask: Bool[Array, "B T"] | Int[Array, "B T"] | None
) -> Float[Array, "B D"]:
    """The state at each row's last unmasked position."""
    if attention_mask is None:
        return hidden[:, -1]
    T = hidden.shape[1]
    last = T - 1 - jnp.argmax(attention_mask.astype(bool)[:, ::-1], axis=1)
    return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]


LANGUAGE_MODELS: dict[str, type[nn.Module]] = {
    "decoder": CausalLM,
    "encoder": MaskedLM,
    "encoder_decoder": Seq2SeqLM,
}
HEADS: dict[str, type[nn.Module]] = {
    "none": BareModel,
    "pretraining": MaskedLM,
    "sequence_classification": SequenceClassifier,
    "token_classification": TokenClassifier,
    "question_answering": QuestionAnswerer,
}


def make_model(config: ModelConfig) -> Any:
    """The module of the config's architecture and head, without parameters."""
    config = config.resolved()
    if config.head == "lm":
        return LANGUAGE_MODELS[config.architecture](config)
    return HEADS[config.head](config)
