"""The trunk that decoders and encoders share, and what a decoder adds: going on from a cache."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import ConfigError, ModelConfig
from jaxlm.nn.block import AttendingModule, Block, KVCache, SourceCache, run_block, source_keys
from jaxlm.nn.int8 import Int8Matrix
from jaxlm.nn.layers import Embeddings, Norm, Tap, compute_dtype, identity, is_uniform, scoped
from jaxlm.ops.attention import Segments, attention, position_mask
from jaxlm.ops.positions import rotary_angles, rotary_frequencies, slowed_frequencies


def keeps_products(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether a result is kept for the backward pass: matrix products, batched ones too."""
    return primitive.name == "dot_general"


def keeps_attention(primitive: Any, *_: Any, **params: Any) -> bool:
    """Whether a result is that of a fused attention kernel, which costs much and takes little."""
    named = primitive.name == "name" and params["name"] == "attention"
    return named or primitive.name.startswith("dot_product_attention_fwd")


# What of a block is kept for the backward pass; the rest is computed again. A scan keeps what it
# keeps for all layers, each in an array of its own, so that without a policy it would hold every
# elementwise result too, which XLA computes again in a loop.
policies = jax.checkpoint_policies
REMAT_POLICIES = {
    "none": policies.save_from_both_policies(keeps_products, keeps_attention),
    "dots": policies.save_from_both_policies(
        policies.dots_with_no_batch_dims_saveable, keeps_attention
    ),
    "full": policies.nothing_saveable,
}


class Trunk(AttendingModule):
    """Token ids to hidden states: embeddings, blocks and, with pre-norm, a final norm."""

    causal: ClassVar[bool] = False

    @property
    def num_layers(self) -> int:
        return self.config.num_layers

    @property
    def num_tokens(self) -> int | None:
        """The size of its own table of token vectors; see `Embeddings`."""
        return self.config.vocab_size

    @property
    def has_context(self) -> bool:
        """Whether its blocks have cross-attention."""
        return self.causal and self.config.architecture == "encoder_decoder"

    def setup(self):
        config = self.config
        self.embed = Embeddings(config, self.num_tokens)
        self.layers = [
            Block(config, self.attention, self.has_context) for _ in range(self.num_layers)
        ]
        if config.final_norm:
            self.final_norm = Norm(config)

    def __call__(
        self,
        ids: Int[Array, "B T"],
        *,
        positions: Int[Array, "#B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        attention_mask: Bool[Array, "B T"] | Int[Array, "B T"] | None = None,
        token_type_ids: Int[Array, "B T"] | None = None,
        context: Float[Array, "B S D={self.config.d_model}"] | None = None,
        context_mask: Bool[Array, "B S"] | Int[Array, "B S"] | None = None,
        tokens: Float[Array, "V D={self.config.d_model}"] | Int8Matrix | None = None,
        deterministic: bool = True,
        tap: Tap = identity,
    ) -> Float[Array, "B T D={self.config.d_model}"]:
        """Final hidden states; tokens attend within their segment, to unmasked keys.

        `positions` default to 0 .. T - 1. `context` is what cross-attention reads, where its mask
        allows it, and `tokens` are the token vectors of a trunk without its own.
        `tap(name, x) -> x` sees every activation by its path and may return another; with a tap
        that is not a `UniformTap` the blocks run one after another whatever `scan_layers` and
        `remat` say.
        """
        check_inputs(
            self.config,
            ids,
            positions=positions,
            segment_ids=segment_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
        )
        mask = self._mask(ids, segment_ids, attention_mask)
        if positions is None:
            positions = jnp.arange(ids.shape[1])[None]
        config = self.config
        x, block_args = self._enter(
            ids, positions, positions, token_type_ids, deterministic, tap, tokens
        )
        block_args |= {"mask": mask, "causal": self.causal, "context": context}
        block_args["deterministic"] = deterministic
        if context_mask is not None:
            block_args["context_mask"] = context_mask.astype(bool)[:, None, :]
        apart = (config.scan_layers or config.remat != "none") and not self.is_initializing()
        if apart and is_uniform(tap):
            return self._leave(self._run_pure(x, block_args | {"tap": tap}), tap)
        for i, layer in enumerate(self.layers):
            x, _ = layer(x, **block_args, tap=part_tap(tap, f"layers_{i}"))
        return self._leave(x, tap)

    def _mask(
        self, ids: Array, segment_ids: Array | None, attention_mask: Array | None
    ) -> Array | Segments | None:
        """What each token may attend to, besides causality; an own attention gets booleans."""
        if segment_ids is None and attention_mask is None:
            return None
        queries = jnp.zeros_like(ids[:, :1]) if segment_ids is None else segment_ids
        keys = queries
        if attention_mask is not None:
            keys = jnp.where(attention_mask.astype(bool), keys, -1)
        segments = Segments(queries, keys)
        return segments if self.attention is attention else segments.mask

    def _enter(
        self,
        ids: Array,
        positions: Array,
        key_positions: Array,
        types: Array | None,
        deterministic: bool,
        tap: Tap,
        tokens: Array | Int8Matrix | None = None,
    ):
        """The embedded tokens, and the arguments that every block shares."""
        x = tap("embeddings", self.embed(ids, positions, types, deterministic, tokens))
        shared: dict[str, Any] = {}
        if self.config.positions == "rotary":
            shared["rotation"] = rotary_angles(positions, model_frequencies(self.config))
        elif self.config.positions == "relative":
            shared["bias"] = self.embed.relative_bias(positions, key_positions, not self.causal)
        return x, shared

    def _leave(self, x: Array, tap: Tap) -> Array:
        return tap("final", self.final_norm(x) if self.config.final_norm else x)

    def _run_pure(self, x: Array, block_args: dict) -> Array:
        """The blocks as a pure function of their params, for `lax.scan` and rematerialisation.

        Params stay one tree a layer, so a checkpoint does not depend on `scan_layers`; the scan
        stacks them inside the compiled step.
        """
        config, num_layers = self.config, self.num_layers
        block = Block(config, self.attention, self.has_context, parent=None)
        params = [self.variables["params"][f"layers_{i}"] for i in range(num_layers)]
        # Blocks of which only some have adapters cannot be stacked.
        scans = config.scan_layers and len(set(map(jax.tree.structure, params))) == 1
        random = not block_args["deterministic"] and config.dropout > 0
        keys = jax.random.split(
            self.make_rng("dropout") if random else jax.random.key(0), num_layers
        )

        def step(x: Array, layer: tuple) -> tuple[Array, None]:
            layer_params, key = layer
            x, _ = block.apply({"params": layer_params}, x, **block_args, rngs={"dropout": key})
            return x, None

        if scans or config.remat != "none":
            policy = REMAT_POLICIES[config.remat]
            step = jax.checkpoint(step, prevent_cse=not scans, policy=policy)
        if scans:
            dtype = compute_dtype(config)

            def stack(path: tuple, *leaves: Array) -> Array:
                # Stacked in the type of the products, so that less is held twice.
                kernel = getattr(path[-1], "key", None) == "kernel"
                return jnp.stack([leaf.astype(dtype) if kernel else leaf for leaf in leaves])

            stacked = jax.tree_util.tree_map_with_path(stack, *params)
            return jax.lax.scan(step, x, (stacked, keys))[0]
        for layer in zip(params, keys, strict=True):
            x, _ = step(x, layer)
        return x


def check_inputs(config: ModelConfig, ids: Array, **others: Array | None) -> None:
    """Raise ConfigError unless ids are rows of tokens that fit the model, and the others with them.

    `positions` may be one row for all.
    """
    if jnp.ndim(ids) != 2 or not jnp.issubdtype(jnp.result_type(ids), jnp.integer):
        kind = f"{jnp.result_type(ids)}{list(jnp.shape(ids))}"
        raise ConfigError(f"ids must be whole numbers of the shape (B, T), got {kind}")
    B, T = jnp.shape(ids)
    if config.max_seq_len is not None and config.max_seq_len < T:
        raise ConfigError(f"{T} tokens are more than model.max_seq_len {config.max_seq_len}")
    for name, value in others.items():
        if value is not None and jnp.shape(value) not in ((B, T), (1, T)):
            raise ConfigError(
                f"{name} must have the shape of ids, ({B}, {T}), got {jnp.shape(value)}"
            )


class Encoder(Trunk):
    """A trunk whose tokens attend in both directions."""

    @property
    def num_layers(self) -> int:
        both = self.config.architecture == "encoder_decoder"
        return self.config.num_encoder_layers if both else self.config.num_layers

    @property
    def num_tokens(self) -> int | None:
        config = self.config
        if config.architecture != "encoder_decoder":
            return config.vocab_size
        return 0 if config.share_embeddings else config.source_vocab_size


class Decoder(Trunk):
    """A trunk whose tokens attend backwards only, and which can continue from a KV cache."""

    causal: ClassVar[bool] = True

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
        slots = jnp.arange(cache.num_slots)[None]
        x, block_args = self._enter(ids, positions, slots, None, True, tap)
        block_args |= {"mask": mask, "start": start}
        source, filled = cache.source, []
        if source is not None:
            block_args["context_mask"] = source.mask[:, None, :]
        block = Block(self.config, self.attention, self.has_context, parent=None)
        for i, (layer, old) in enumerate(zip(self.layers, cache.layers, strict=True)):
            args = block_args | {"cache": old, "context": source and source.layers[i]}
            name = f"layers_{i}"
            if is_uniform(tap):
                x, new = run_block(block, tap, self.variables["params"][name], x, args)
            else:
                x, new = layer(x, **args, tap=scoped(tap, name))
            filled.append(new)
        added = ids.shape[1] if lengths is None else lengths
        return self._leave(x, tap), KVCache(tuple(filled), start + added, source)

    def read_source(
        self,
        context: Float[Array, "B S D={self.config.d_model}"],
        context_mask: Bool[Array, "B S"] | Int[Array, "B S"] | None = None,
    ) -> SourceCache:
        """The keys and values of a source for the cross-attention of each block."""
        params = self.variables["params"]
        layers = [
            source_keys(self.config, params[f"layers_{i}"], context) for i in range(self.num_layers)
        ]
        if context_mask is None:
            context_mask = jnp.ones(context.shape[:2], bool)
        return SourceCache(tuple(layers), context_mask.astype(bool))


def part_tap(tap: Tap, name: str) -> Tap:
    """The tap of a block or of a trunk, which a uniform tap does not tell from others."""
    return tap if is_uniform(tap) else scoped(tap, name)


def model_frequencies(config: ModelConfig) -> Float[Array, " H2"]:
    """The rotary frequencies of a model, scaled as its config says."""
    config = config.resolved()
    frequencies = rotary_frequencies(config.head_dim, config.rope_theta)
    if config.rope_scaling == "linear":
        return frequencies / config.rope_factor
    if config.rope_scaling == "llama3":
        return slowed_frequencies(
            frequencies,
            config.rope_factor,
            config.rope_low_freq_factor,
            config.rope_high_freq_factor,
            config.rope_original_len,
        )
    return frequencies
