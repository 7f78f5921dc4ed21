"""The encoder-decoder of Vaswani et al. 2017: two trunks, the second of which reads the first."""

import dataclasses

from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import ConfigError
from jaxlm.models.trunk import Decoder, Encoder, part_tap
from jaxlm.nn.block import AttendingModule, KVCache, SourceCache, init_cache
from jaxlm.nn.layers import Embeddings, Tap, identity


class EncoderDecoder(AttendingModule):
    """An Encoder of a source, and a Decoder of a target that attends to what it returns."""

    def setup(self):
        self.encoder = Encoder(self.config, self.attention)
        self.decoder = Decoder(self.config, self.attention)

    @property
    def embed(self) -> Embeddings:
        """The embeddings of the target."""
        return self.decoder.embed

    def __call__(
        self,
        source_ids: Int[Array, "B S"],
        target_ids: Int[Array, "B T"] | None = None,
        *,
        source_mask: Bool[Array, "B S"] | Int[Array, "B S"] | None = None,
        target_mask: Bool[Array, "B T"] | Int[Array, "B T"] | None = None,
        deterministic: bool = True,
        tap: Tap = identity,
    ) -> Float[Array, "B T D={self.config.d_model}"]:
        """Final hidden states of the target; only `init` may leave it out."""
        if target_ids is None:
            if not self.is_initializing():
                raise ConfigError("an encoder_decoder takes source ids and target ids")
            target_ids = source_ids
        context = self.encode(
            source_ids, source_mask=source_mask, deterministic=deterministic, tap=tap
        )
        return self.decoder(
            target_ids,
            attention_mask=target_mask,
            context=context,
            context_mask=source_mask,
            deterministic=deterministic,
            tap=part_tap(tap, "decoder"),
        )

    def encode(
        self,
        source_ids: Int[Array, "B S"],
        *,
        source_mask: Bool[Array, "B S"] | Int[Array, "B S"] | None = None,
        deterministic: bool = True,
        tap: Tap = identity,
    ) -> Float[Array, "B S D={self.config.d_model}"]:
        """Final hidden states of the source."""
        return self.encoder(
            source_ids,
            attention_mask=source_mask,
            tokens=self.decoder.embed.tokens if self.config.share_embeddings else None,
            deterministic=deterministic,
            tap=part_tap(tap, "encoder"),
        )

    def read_source(
        self,
        source_ids: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"] | Int[Array, "B S"] | None = None,
    ) -> SourceCache:
        """What the decoder reads of each source, for a KV cache."""
        context = self.encode(source_ids, source_mask=source_mask)
        return self.decoder.read_source(context, source_mask)

    def start_cache(
        self,
        source_ids: Int[Array, "B S"],
        num_slots: int,
        source_mask: Bool[Array, "B S"] | Int[Array, "B S"] | None = None,
    ) -> KVCache:
        """A cache without target tokens for `extend`, which holds what it reads of each source."""
        cache = init_cache(self.config, len(source_ids), num_slots)
        return dataclasses.replace(cache, source=self.read_source(source_ids, source_mask))

    def extend(
        self,
        ids: Int[Array, "B T"],
        cache: KVCache,
        lengths: Int[Array, " B"] | None = None,
        *,
        tap: Tap = identity,
    ) -> tuple[Float[Array, "B T D={self.config.d_model}"], KVCache]:
        """Hidden states of target tokens appended to a cache; see `Decoder.extend`."""
        return self.decoder.extend(ids, cache, lengths, tap=part_tap(tap, "decoder"))
