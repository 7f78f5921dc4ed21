"""The one attention and the one Block, for training and decoding, and the KV cache they fill."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import ModelConfig
from jaxlm.nn.layers import (
    ConfiguredModule,
    Dense,
    Dropout,
    FeedForward,
    Norm,
    Tap,
    compute_dtype,
    identity,
    scoped,
)
from jaxlm.ops.attention import AttentionFunction, Segments, attention
from jaxlm.ops.positions import Rotation, rotate
from jaxlm.ops.reductions import rms_norm

FEW = 16  # up to so many new entries a row are written in place


@flax.struct.dataclass
class LayerCache:
    """Keys and values of one layer; slot s of a row holds its position s."""

    key: Float[Array, "B K S H"]
    value: Float[Array, "B K S H"]

    def write(
        self,
        key: Float[Array, "B K T H"],
        value: Float[Array, "B K T H"],
        start: Int[Array, " B"],
    ) -> "LayerCache":
        """The cache with T new entries a row, from slot `start` of that row on.

        For T up to FEW, start + T must not exceed the number of slots; for larger T, entries past
        the last slot are dropped.
        """
        put = jax.vmap(write_few if key.shape[2] <= FEW else write_many)
        written = put(self.key, key, start), put(self.value, value, start)
        # Without the barrier XLA repeats the write where the cache is read, and copies the cache.
        return LayerCache(*jax.lax.optimization_barrier(written))


def write_few(
    row: Float[Array, "K S H"], new: Float[Array, "K T H"], start: Int[Array, ""]
) -> Float[Array, "K S H"]:
    """Write in place if the row is donated: a decoding step then touches T slots only."""
    return jax.lax.dynamic_update_slice_in_dim(row, new.astype(row.dtype), start, axis=1)


def write_many(
    row: Float[Array, "K S H"], new: Float[Array, "K T H"], start: Int[Array, ""]
) -> Float[Array, "K S H"]:
    """Rebuild the whole row, so that the padding of a prompt may reach past its end."""
    place = jnp.arange(row.shape[1]) - start
    there = (place >= 0) & (place < new.shape[1])
    spread = new.astype(row.dtype)[:, jnp.clip(place, 0, new.shape[1] - 1)]
    return jnp.where(there[:, None], spread, row)


@flax.struct.dataclass
class KVCache:
    """The LayerCache of every layer, and the number of filled positions of each row."""

    layers: tuple[LayerCache, ...]
    lengths: Int[Array, " B"]

    @property
    def num_slots(self) -> int:
        return self.layers[0].key.shape[2]


def init_cache(config: ModelConfig, batch_size: int, num_slots: int) -> KVCache:
    """An empty cache of `num_slots` positions a row."""
    config = config.resolved()
    shape = (batch_size, config.num_kv_heads, num_slots, config.head_dim)
    dtype = compute_dtype(config)
    layers = tuple(
        LayerCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
        for _ in range(config.num_layers)
    )
    return KVCache(layers, jnp.zeros(batch_size, jnp.int32))


class AttendingModule(ConfiguredModule):
    """Base of the modules that attend; `attention` is the function that computes it.

    It is compared by identity when a compiled program is looked up: pass a module-level function,
    not a new lambda each time.
    """

    attention: AttentionFunction = attention


class Attention(AttendingModule):
    """Multi-head attention of x over itself, over `context`, or over a cache x is appended to.

    Keys and values may have fewer heads than queries (Ainslie et al. 2023). Returns the output
    and the cache with the keys and values of x written from slot `start` on.
    """

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "#B #T S"] | Segments | None = None,
        *,
        causal: bool = False,
        context: Float[Array, "B S D"] | None = None,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
        start: Int[Array, " B"] | None = None,
        deterministic: bool = True,
        tap: Tap = identity,
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        config = self.config
        B, T, _ = x.shape
        K, G, H = config.num_kv_heads, config.num_heads // config.num_kv_heads, config.head_dim
        source = x if context is None else context

        def project(y: Array, name: str, heads: int) -> Float[Array, "B N T H"]:
            y = Dense(config, heads * H, config.qkv_bias, name=name)(y)
            y = y.reshape(B, -1, heads, H).swapaxes(1, 2)
            if name == "value":
                return y
            if config.qk_norm:
                scale = self.param(f"{name}_norm", nn.initializers.ones, (H,))
                y = rms_norm(y, scale, config.norm_eps).astype(y.dtype)
            return y if rotation is None else rotate(y, rotation)

        query = tap("query", project(x, "query", K * G)).reshape(B, K, G, T, H)
        key = tap("key", project(source, "key", K))
        value = tap("value", project(source, "value", K))
        if cache is not None and start is not None:
            cache = cache.write(key, value, start)
            key, value = cache.key, cache.value
        drop = not deterministic and config.dropout > 0
        out = self.attention(
            query,
            key,
            value,
            mask,
            causal=causal,
            dropout_rate=config.dropout,
            dropout_key=self.make_rng("dropout") if drop else None,
            tap=None if tap is identity else tap,
        )
        out = tap("mixed", out.reshape(B, K * G, T, H)).swapaxes(1, 2).reshape(B, T, K * G * H)
        out = Dense(config, config.d_model, config.bias, residual=True, name="output")(out)
        return out, cache


class Block(AttendingModule):
    """Self-attention, optional cross-attention and feed-forward, each a residual branch.

    Pre-norm: x + f(norm(x)) (Xiong et al. 2020); post-norm: norm(x + f(x)) (Vaswani et al. 2017).
    Cross-attention exists if `context` is given. Returns the output and the cache, as Attention.
    """

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "#B #T S"] | Segments | None = None,
        *,
        causal: bool = False,
        rotation: Rotation | None = None,
        cache: LayerCache | None = None,
        start: Int[Array, " B"] | None = None,
        context: Float[Array, "B C D"] | None = None,
        context_mask: Bool[Array, "#B #T C"] | None = None,
        deterministic: bool = True,
        tap: Tap = identity,
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        config = self.config
        pre = config.norm_position == "pre"

        def add(x: Array, branch: Array, name: str) -> Float[Array, "B T D"]:
            branch = tap(name, Dropout(config.dropout)(branch, deterministic))
            x = x + branch
            return x if pre else Norm(config, name=f"{name}_norm")(x)

        def normed(x: Array, name: str) -> Float[Array, "B T D"]:
            return Norm(config, name=f"{name}_norm")(x) if pre else x

        branch, cache = Attention(config, self.attention, name="attention")(
            normed(x, "attention"),
            mask,
            causal=causal,
            rotation=rotation,
            cache=cache,
            start=start,
            deterministic=deterministic,
            tap=scoped(tap, "attention"),
        )
        x = add(x, branch, "attention")
        if context is not None:
            branch, _ = Attention(config, self.attention, name="cross_attention")(
                normed(x, "cross_attention"),
                context_mask,
                context=context,
                deterministic=deterministic,
                tap=scoped(tap, "cross_attention"),
            )
            x = add(x, branch, "cross_attention")
        branch = FeedForward(config, name="feed_forward")(
            normed(x, "feed_forward"), scoped(tap, "feed_forward")
        )
        x = add(x, branch, "feed_forward")
        return tap("residual", x), cache
