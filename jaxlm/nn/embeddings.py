"""Token and position vectors, and the tied head that reads them backwards."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.config import ConfigError, ModelConfig
from jaxlm.nn.layers import Dropout, compute_dtype, kernel_init
from jaxlm.ops.positions import sinusoids


class Embeddings(nn.Module):
    """Token vectors plus learned or sinusoidal position vectors."""

    config: ModelConfig

    def setup(self):
        config, init = self.config, kernel_init(self.config)
        for name in ("vocab_size", "max_seq_len"):
            if getattr(config, name) is None:
                raise ConfigError(f"model.{name} must be given to build a model")
        self.tokens = self.param("tokens", init, (config.vocab_size, config.d_model))
        if config.positions == "learned":
            self.positions = self.param("positions", init, (config.max_seq_len, config.d_model))
        self.dropout = Dropout(config.dropout)

    def __call__(
        self, ids: Int[Array, "B T"], positions: Int[Array, "#B T"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        x = self.tokens[ids]
        if self.config.positions == "learned":
            x += self.positions[positions]
        elif self.config.positions == "sinusoidal":
            x += sinusoids(positions, self.config.d_model)
        return self.dropout(x.astype(compute_dtype(self.config)), deterministic)

    def attend(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Logits by the token vectors themselves (Press and Wolf 2017), in fp32."""
        table = self.tokens.astype(x.dtype)
        return jnp.einsum("btd,vd->btv", x, table, preferred_element_type=jnp.float32)
