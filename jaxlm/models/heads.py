"""What fine-tuning puts on a trunk: classifiers of sequences and tokens, answers, bare states."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import ModelConfig
from jaxlm.models.decoder import Decoder
from jaxlm.models.encoder import Encoder, Pooler
from jaxlm.models.trunk import Trunk
from jaxlm.nn.layers import Dense, Dropout

TRUNKS: dict[str, type[Trunk]] = {"decoder": Decoder, "encoder": Encoder}


class BareModel(nn.Module):
    """A trunk without a head: hidden states (B, T, D), and the `pooled` first token if asked."""

    config: ModelConfig

    def setup(self):
        self.backbone = TRUNKS[self.config.architecture](self.config)
        if self.config.pooler:
            self.pooler = Pooler(self.config)

    def __call__(self, ids: Int[Array, "B T"], **keywords) -> Float[Array, "B T D"]:
        """Final hidden states; keywords as for `Trunk.__call__`."""
        hidden = self.backbone(ids, **keywords)
        if self.config.pooler and self.is_initializing():
            self.pooler(hidden[:, 0])
        return hidden

    def pooled(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B D"]:
        """The pooler's vector of hidden states."""
        return self.pooler(hidden[:, 0])


class SequenceClassifier(nn.Module):
    """Logits (B, C) in fp32 of an encoder's first, a decoder's last, or the mean of all tokens."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        ids: Int[Array, "B T"],
        *,
        attention_mask: Bool[Array, "B T"] | Int[Array, "B T"] | None = None,
        deterministic: bool = True,
        **keywords,
    ) -> Float[Array, "B C"]:
        """Keywords as for `Trunk.__call__`; a decoder's last token is the last unmasked one."""
        config = self.config
        backbone = TRUNKS[config.architecture](config, name="backbone")
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
        # The reference's decoders score without a bias.
        logits = Dense(len(config.labels), config, not decoder, name="classifier")(pooled)
        return logits.astype(jnp.float32)


class TokenClassifier(nn.Module):
    """Logits (B, T, C) in fp32 for every token."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, ids: Int[Array, "B T"], *, deterministic: bool = True, **keywords
    ) -> Float[Array, "B T C"]:
        """Keywords as for `Trunk.__call__`."""
        config = self.config
        backbone = TRUNKS[config.architecture](config, name="backbone")
        hidden = backbone(ids, deterministic=deterministic, **keywords)
        hidden = Dropout(config.dropout)(hidden, deterministic)
        logits = Dense(len(config.labels), config, True, name="classifier")(hidden)
        return logits.astype(jnp.float32)


class QuestionAnswerer(nn.Module):
    """Logits in fp32 of where an answer starts (B, T) and of where it ends (B, T)."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, ids: Int[Array, "B T"], **keywords
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """Keywords as for `Trunk.__call__`."""
        config = self.config
        hidden = TRUNKS[config.architecture](config, name="backbone")(ids, **keywords)
        logits = Dense(2, config, True, name="classifier")(hidden).astype(jnp.float32)
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
