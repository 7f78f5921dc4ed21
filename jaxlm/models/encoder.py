"""The encoder, and the masked language model over it."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.config import ModelConfig
from jaxlm.models.trunk import Trunk
from jaxlm.nn.layers import ACTIVATIONS, Dense, Norm, kernel_init


class Encoder(Trunk):
    """A trunk whose tokens attend both ways."""


class Pooler(nn.Module):
    """A dense layer and tanh, on what stands for the whole (Devlin et al. 2018)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, vector: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return nn.tanh(Dense(self.config.d_model, self.config, True, name="dense")(vector))


class MaskedLM(nn.Module):
    """Logits (B, T, V) in fp32 for the token at each position (Devlin et al. 2018)."""

    config: ModelConfig

    def setup(self):
        config = self.config
        self.backbone = Encoder(config)
        self.transform = Dense(config.d_model, config, config.bias)
        self.transform_norm = Norm(config)
        if config.bias:
            self.bias = self.param("bias", nn.initializers.zeros, (config.vocab_size,))
        if not config.tie_embeddings:
            shape = (config.d_model, config.vocab_size)
            self.unembed = self.param("head", kernel_init(config), shape)
        if config.head == "pretraining":
            self.pooler = Pooler(config)
            self.next = Dense(2, config, True, name="next_sentence")

    def __call__(
        self, ids: Int[Array, "B T"], **keywords
    ) -> Float[Array, "B T V"] | tuple[Float[Array, "B T V"], Float[Array, "B 2"]]:
        """Logits for every position; keywords as for `Trunk.__call__`.

        With the head `pretraining` also `next_sentence` logits.
        """
        hidden = self.backbone(ids, **keywords)
        logits = self.head(hidden)
        if self.config.head == "pretraining":
            return logits, self.next_sentence(hidden)
        return logits

    def hidden(self, ids: Int[Array, "B T"], **keywords) -> Float[Array, "B T D"]:
        """Final hidden states, for a head at chosen positions only."""
        return self.backbone(ids, **keywords)

    def head(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Logits of hidden states: dense, activation, norm, then the token vectors."""
        config = self.config
        x = self.transform_norm(ACTIVATIONS[config.activation](self.transform(hidden)))
        if config.tie_embeddings:
            logits = self.backbone.embed.attend(x)
        else:
            kernel = self.unembed.astype(x.dtype)
            logits = jnp.einsum("btd,dv->btv", x, kernel, preferred_element_type=jnp.float32)
        return logits + self.bias if config.bias else logits

    def next_sentence(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B 2"]:
        """Logits in fp32: 0, the second sentence follows the first; 1, it is from elsewhere."""
        return self.next(self.pooler(hidden[:, 0])).astype(jnp.float32)
