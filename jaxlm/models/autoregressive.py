"""The models that predict the next token: a trunk or a pair of them, and a vocabulary's head."""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.models.encoder_decoder import EncoderDecoder
from jaxlm.models.trunk import Decoder
from jaxlm.nn.block import AttendingModule, KVCache, SourceCache
from jaxlm.nn.int8 import matmul, matmul_transposed, weight
from jaxlm.nn.layers import Tap, identity, kernel_init


class AutoregressiveLM(AttendingModule):
    """Base of the models that predict the next token, and can go on from a cache."""

    trunk: ClassVar[Any]

    def setup(self):
        config = self.config
        self.backbone = self.trunk(config, self.attention)
        if not config.tie_embeddings:
            zero = nn.initializers.zeros
            init = zero if config.zero_init_head else kernel_init(config)
            self.unembed = weight(self, "head", init, (config.d_model, config.vocab_size))
        if config.head_bias:
            self.bias = self.param("bias", nn.initializers.zeros, (config.vocab_size,))

    def extend(
        self,
        ids: Int[Array, "B T"],
        cache: KVCache,
        lengths: Int[Array, " B"] | None = None,
        *,
        tap: Tap = identity,
    ) -> tuple[Float[Array, "B T D={self.config.d_model}"], KVCache]:
        """Hidden states of tokens appended to a cache; see `Decoder.extend`."""
        return self.backbone.extend(ids, cache, lengths, tap=tap)

    def head(
        self, hidden: Float[Array, "B T D"], product: Callable[..., Array] = matmul_transposed
    ) -> Float[Array, "B T V={self.config.vocab_size}"]:
        """Logits of hidden states; a tied head takes the `product` with the token vectors."""
        if self.config.scale_head:
            hidden = hidden * self.config.d_model**-0.5
        if self.config.tie_embeddings:
            logits = self.backbone.embed.attend(hidden, product)
        else:
            logits = matmul(hidden, self.unembed, jnp.float32)
        return logits + self.bias if self.config.head_bias else logits


class CausalLM(AutoregressiveLM):
    """A Decoder with a head over the vocabulary: next-token logits (B, T, V) in fp32."""

    trunk: ClassVar[Any] = Decoder

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


class Seq2SeqLM(AutoregressiveLM):
    """An EncoderDecoder with a head over the target's vocabulary (Vaswani et al. 2017)."""

    trunk: ClassVar[Any] = EncoderDecoder

    def __call__(
        self,
        source_ids: Int[Array, "B S"],
        target_ids: Int[Array, "B T"] | None = None,
        **keywords,
    ) -> Float[Array, "B T V={self.config.vocab_size}"]:
        """Logits in fp32 of what follows each target token.

        Keywords: source_mask (B, S) and target_mask (B, T), True where there is a token;
        deterministic; tap.
        """
        return self.head(self.backbone(source_ids, target_ids, **keywords))

    def hidden(
        self, source_ids: Int[Array, "B S"], target_ids: Int[Array, "B T"], **keywords
    ) -> Float[Array, "B T D={self.config.d_model}"]:
        """Final hidden states of the target, for a head at chosen positions only."""
        return self.backbone(source_ids, target_ids, **keywords)

    def encode(
        self,
        source_ids: Int[Array, "B S"],
        *,
        source_mask: Bool[Array, "B S"] | Int[Array, "B S"] | None = None,
        deterministic: bool = True,
        tap: Tap = identity,
    ) -> Float[Array, "B S D={self.config.d_model}"]:
        """Final hidden states of the source."""
        return self.backbone.encode(
            source_ids, source_mask=source_mask, deterministic=deterministic, tap=tap
        )

    def read_source(
        self,
        source_ids: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"] | Int[Array, "B S"] | None = None,
    ) -> SourceCache:
        """The keys and values of each source, for a cache that has none."""
        return self.backbone.read_source(source_ids, source_mask)

    def start_cache(
        self,
        source_ids: Int[Array, "B S"],
        num_slots: int,
        source_mask: Bool[Array, "B S"] | Int[Array, "B S"] | None = None,
    ) -> KVCache:
        """A cache for `extend` that holds the source's keys and values, and no target tokens."""
        return self.backbone.start_cache(source_ids, num_slots, source_mask)
