"""Token, position and type vectors, and the tied head that reads them backwards."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.config import ConfigError, ModelConfig
from jaxlm.nn.int8 import Int8Matrix, weight
from jaxlm.nn.layers import Dropout, Norm, compute_dtype, kernel_init
from jaxlm.ops.positions import sinusoids


class Embeddings(nn.Module):
    """Token vectors plus those of positions and token types, normalised if the config says so."""

    config: ModelConfig

    def setup(self):
        config, init = self.config, kernel_init(self.config)
        for name in ("vocab_size", "max_seq_len"):
            if getattr(config, name) is None:
                raise ConfigError(f"model.{name} must be given to build a model")
        self.tokens = weight(self, "tokens", init, (config.vocab_size, config.d_model))
        if config.positions == "learned":
            rows = config.max_seq_len + config.position_offset
            self.positions = self.param("positions", init, (rows, config.d_model))
        if config.num_token_types:
            self.types = self.param("types", init, (config.num_token_types, config.d_model))
        if config.embed_norm:
            self.norm = Norm(config)
        self.dropout = Dropout(config.dropout)

    def __call__(
        self,
        ids: Int[Array, "B T"],
        positions: Int[Array, "#B T"],
        token_type_ids: Int[Array, "B T"] | None,
        deterministic: bool,
    ) -> Float[Array, "B T D"]:
        config = self.config
        x = self.tokens[ids]
        if config.positions == "learned":
            x += self.positions[positions + config.position_offset]
        elif config.positions == "sinusoidal":
            x += sinusoids(positions, config.d_model)
        if config.num_token_types:
            x += self.types[jnp.zeros_like(ids) if token_type_ids is None else token_type_ids]
        elif token_type_ids is not None:
            raise ConfigError("token_type_ids were given, but model.num_token_types is 0")
        if config.embed_norm:
            x = self.norm(x)
        return self.dropout(x.astype(compute_dtype(config)), deterministic)

    def attend(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Logits by the token vectors themselves (Press and Wolf 2017), in fp32."""
        if isinstance(self.tokens, Int8Matrix):
            return self.tokens.product(x)
        table = self.tokens.astype(x.dtype)
        return jnp.einsum("btd,vd->btv", x, table, preferred_element_type=jnp.float32)
