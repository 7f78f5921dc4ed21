"""The decoder, and the causal language model over it."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.models.trunk import Trunk
from jaxlm.nn.block import AttendingModule, KVCache
from jaxlm.nn.int8 import matmul, weight
from jaxlm.nn.layers import Tap, identity, kernel_init, scoped
from jaxlm.ops.attention import position_mask


class Decoder(Trunk):
    """A trunk whose tokens attend backwards only, and which can continue from a KV cache."""

    def extend(
        self,
        ids: Int[Array, "B T"],
        cache: KVCache,
        lengths: Int[Array, " B"] | None = None,
        *,
        tap: Tap = identity,
    ) -> tuple[Float[Array, "B T D={self.config.d_model}"], KVCache]:
        """Append tokens to a cache, for prefill and decoding.

        Rows may be right-padded: of row i the first `lengths[i]` tokens count (default: all T).
        `LayerCache.write` says what happens where the cache has no room for all T.
        """
        start = cache.lengths
        positions = start[:, None] + jnp.arange(ids.shape[1])
        mask = position_mask(positions, cache.num_slots)
        x, block_args = self._enter(ids, positions, None, True, tap)
        block_args |= {"mask": mask, "start": start}
        filled = []
        for i, (layer, old) in enumerate(zip(self.layers, cache.layers, strict=True)):
            x, new = layer(x, **block_args, cache=old, tap=scoped(tap, f"layers_{i}"))
            filled.append(new)
        added = ids.shape[1] if lengths is None else lengths
        return self._leave(x, tap), KVCache(tuple(filled), start + added)


class CausalLM(AttendingModule):
    """A Decoder with a head over the vocabulary: next-token logits (B, T, V) in fp32."""

    def setup(self):
        config = self.config
        self.backbone = Decoder(config, self.attention)
        if not config.tie_embeddings:
            zero = nn.initializers.zeros
            init = zero if config.zero_init_head else kernel_init(config)
            self.unembed = weight(self, "head", init, (config.d_model, config.vocab_size))

    def __call__(
        self, ids: Int[Array, "B T"], **keywords
    ) -> Float[Array, "B T V={self.config.vocab_size}"]:
        """Logits for every position; keywords as for `Trunk.__call__`."""
        return self.head(self.backbone(ids, **keywords))

    def hidden(
        self, ids: Int[Array, "B T"], **keywords
    ) -> Float[Array, "B T D={self.config.d_model}"]:
        """Final hidden states, for a head at chosen positions only."""
        return self.backbone(ids, **keywords)

    def extend(
        self, ids: Int[Array, "B T"], cache: KVCache, lengths: Int[Array, " B"] | None = None
    ) -> tuple[Float[Array, "B T D={self.config.d_model}"], KVCache]:
        """Hidden states of tokens appended to a cache; see `Decoder.extend`."""
        return self.backbone.extend(ids, cache, lengths)

    def head(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V={self.config.vocab_size}"]:
        """Logits of hidden states."""
        if self.config.tie_embeddings:
            return self.backbone.embed.attend(hidden)
        return matmul(hidden, self.unembed, jnp.float32)
