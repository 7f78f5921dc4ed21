"""The decoder trunk and the language model over it: GPT-2, Llama, Qwen2 and what lies between."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import ModelConfig
from jaxlm.nn.block import Block
from jaxlm.nn.cache import KVCache
from jaxlm.nn.embeddings import Embeddings
from jaxlm.nn.layers import Norm, Tap, identity, kernel_init, scoped
from jaxlm.ops.attention import position_mask, segment_mask
from jaxlm.ops.positions import rotary_angles


class Decoder(nn.Module):
    """Embeddings, `num_layers` causal blocks and, with pre-norm, a final norm."""

    config: ModelConfig

    def setup(self):
        self.embed = Embeddings(self.config)
        self.layers = [Block(self.config) for _ in range(self.config.num_layers)]
        if self.config.norm_position == "pre":
            self.final_norm = Norm(self.config)

    def __call__(
        self,
        ids: Int[Array, "B T"],
        *,
        positions: Int[Array, "#B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        attention_mask: Bool[Array, "B T"] | Int[Array, "B T"] | None = None,
        deterministic: bool = True,
        tap: Tap = identity,
    ) -> Float[Array, "B T D"]:
        """Final hidden states; tokens attend backwards, within their segment, to unmasked keys."""
        mask = None if segment_ids is None else segment_mask(segment_ids, segment_ids)
        if attention_mask is not None:
            keys = attention_mask.astype(bool)[:, None, :]
            mask = keys if mask is None else mask & keys
        if positions is None:
            positions = jnp.arange(ids.shape[1])[None]
        x, block_args = self._enter(ids, positions, deterministic, tap)
        block_args |= {"mask": mask, "causal": True}
        config = self.config
        if (config.scan_layers or config.remat) and not self.is_initializing():
            return self._leave(self._run_pure(x, block_args), tap)
        for i, layer in enumerate(self.layers):
            x, _ = layer(x, **block_args, tap=scoped(tap, f"layers_{i}"))
        return self._leave(x, tap)

    def extend(
        self,
        ids: Int[Array, "B T"],
        cache: KVCache,
        lengths: Int[Array, " B"] | None = None,
        *,
        tap: Tap = identity,
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Append tokens to a cache: prefill and decoding.

        Rows may be right-padded; `lengths` tells how many of each row's T tokens count (default:
        all). For what finds no room in the cache see `LayerCache.write`.
        """
        start = cache.lengths
        positions = start[:, None] + jnp.arange(ids.shape[1])
        mask = position_mask(positions, cache.num_slots)
        x, block_args = self._enter(ids, positions, True, tap)
        block_args |= {"mask": mask, "start": start}
        filled = []
        for i, (layer, old) in enumerate(zip(self.layers, cache.layers, strict=True)):
            x, new = layer(x, **block_args, cache=old, tap=scoped(tap, f"layers_{i}"))
            filled.append(new)
        added = ids.shape[1] if lengths is None else lengths
        return self._leave(x, tap), KVCache(tuple(filled), start + added)

    def _enter(self, ids: Array, positions: Array, deterministic: bool, tap: Tap):
        """The embedded tokens, and the arguments that every block shares."""
        config = self.config
        x = tap("embeddings", self.embed(ids, positions, deterministic))
        rotation = None
        if config.positions == "rotary":
            rotation = rotary_angles(positions, config.head_dim, config.rope_theta)
        return x, {"rotation": rotation, "deterministic": deterministic}

    def _leave(self, x: Array, tap: Tap) -> Array:
        return tap("final", self.final_norm(x) if self.config.norm_position == "pre" else x)

    def _run_pure(self, x: Array, block_args: dict) -> Array:
        """The blocks as a pure function of their params, for `lax.scan` and rematerialisation.

        Params stay one tree a layer, so a checkpoint does not depend on `scan_layers`; the scan
        stacks them inside the compiled step. Taps do not reach in here.
        """
        config = self.config
        num_layers = config.num_layers
        block = Block(config, parent=None)
        params = [self.variables["params"][f"layers_{i}"] for i in range(num_layers)]
        random = not block_args["deterministic"] and config.dropout > 0
        keys = jax.random.split(
            self.make_rng("dropout") if random else jax.random.key(0), num_layers
        )

        def step(x: Array, layer: tuple) -> tuple[Array, None]:
            layer_params, key = layer
            x, _ = block.apply({"params": layer_params}, x, **block_args, rngs={"dropout": key})
            return x, None

        if config.remat:
            step = jax.checkpoint(step, prevent_cse=not config.scan_layers)
        if config.scan_layers:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
            return jax.lax.scan(step, x, (stacked, keys))[0]
        for layer in zip(params, keys, strict=True):
            x, _ = step(x, layer)
        return x


class CausalLM(nn.Module):
    """A Decoder with a head over the vocabulary: next-token logits (B, T, V) in fp32."""

    config: ModelConfig

    def setup(self):
        self.backbone = Decoder(self.config)
        if not self.config.tie_embeddings:
            config = self.config
            zero = nn.initializers.zeros
            init = zero if config.zero_init_head else kernel_init(config)
            self.unembed = self.param("head", init, (config.d_model, config.vocab_size))

    def __call__(self, ids: Int[Array, "B T"], **keywords) -> Float[Array, "B T V"]:
        """Logits for every position; keywords as for `Decoder.__call__`."""
        return self.head(self.backbone(ids, **keywords))

    def hidden(self, ids: Int[Array, "B T"], **keywords) -> Float[Array, "B T D"]:
        """Final hidden states, for a head at chosen positions only."""
        return self.backbone(ids, **keywords)

    def extend(
        self, ids: Int[Array, "B T"], cache: KVCache, lengths: Int[Array, " B"] | None = None
    ) -> tuple[Float[Array, "B T D"], KVCache]:
        """Hidden states of tokens appended to a cache; see `Decoder.extend`."""
        return self.backbone.extend(ids, cache, lengths)

    def head(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Logits of hidden states."""
        if self.config.tie_embeddings:
            return self.backbone.embed.attend(hidden)
        kernel = self.unembed.astype(hidden.dtype)
        return jnp.einsum("btd,dv->btv", hidden, kernel, preferred_element_type=jnp.float32)
