"""The one attention and the one Block, for training and decoding, and the KV cache they fill."""

from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import ConfigError, ModelConfig
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
    with_summed_gradient,
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
class SourceCache:
    """What the cross-attention of every layer reads: keys and values of R encoded sources.

    B / R rows of a KVCache share a source: rows 0 to B / R - 1 the first, and so on.
    """

    layers: tuple[LayerCache, ...]
    mask: Bool[Array, "R C"]


@flax.struct.dataclass
class KVCache:
    """The LayerCache of every layer, and the number of filled positions of each row.

    A decoder with cross-attention reads its `source` as well.
    """

    layers: tuple[LayerCache, ...]
    lengths: Int[Array, " B"]
    source: SourceCache | None = None

    @property
    def num_slots(self) -> int:
        return self.layers[0].key.shape[2]

    def take(self, rows: Int[Array, " n"]) -> "KVCache":
        """Other rows of it, which read the sources as they are."""
        layers, lengths = jax.tree.map(lambda x: x[rows], (self.layers, self.lengths))
        return KVCache(layers, lengths, self.source)


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


def over_heads(tap: Tap) -> Tap:
    """The tap of an attention function: of its groups (B, K, G, ...) it sees heads (B, N, ...)."""

    def grouped(name: str, x: Array) -> Array:
        heads = x.reshape(len(x), -1, *x.shape[3:])
        edited = tap(name, heads)
        return x if edited is heads else edited.reshape(x.shape)

    return grouped


class AttendingModule(ConfiguredModule):
    """Base of the modules that attend; `attention` is the function that computes it.

    It is compared by identity when a compiled program is looked up: pass a module-level function,
    not a new lambda each time.
    """

    attention: AttentionFunction = attention


class Attention(AttendingModule):
    """Multi-head attention of x over itself, over `context`, or over a cache x is appended to.

    A context comes as vectors, or as what `project` has made of them. Keys and values may have
    fewer heads than queries (Ainslie et al. 2023). Returns the output and the cache with the keys
    and values of x written from slot `start` on.
    """

    def setup(self):
        config = self.config
        H, num_queries = config.head_dim, config.num_heads * config.head_dim
        self.query = Dense(config, num_queries, config.qkv_bias, heads="out")
        self.key = Dense(config, config.num_kv_heads * H, config.qkv_bias, heads="out")
        self.value = Dense(config, config.num_kv_heads * H, config.qkv_bias, heads="out")
        self.output = Dense(config, config.d_model, config.bias, residual=True, heads="in")
        if config.qk_norm:
            self.query_norm = self.param("query_norm", nn.initializers.ones, (H,))
            self.key_norm = self.param("key_norm", nn.initializers.ones, (H,))

    def project(
        self, source: Float[Array, "B S D"], rotation: Rotation | None = None
    ) -> LayerCache:
        """The keys and values of what is attended to."""
        key = self._placed(self.key(source), "key_norm", rotation)
        return LayerCache(key, self.value(source))

    def _placed(
        self, y: Float[Array, "B N T H"], norm: str, rotation: Rotation | None
    ) -> Float[Array, "B N T H"]:
        """Queries or keys, normed if the config says so, and turned by their positions."""
        if self.config.qk_norm:
            y = rms_norm(y, getattr(self, norm), self.config.norm_eps).astype(y.dtype)
        return y if rotation is None else rotate(y, rotation)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "#B #T S"] | Segments | None = None,
        *,
        causal: bool = False,
        context: Float[Array, "B S D"] | LayerCache | None = None,
        rotation: Rotation | None = None,
        bias: Float[Array, "#B N T S"] | None = None,
        cache: LayerCache | None = None,
        start: Int[Array, " B"] | None = None,
        deterministic: bool = True,
        tap: Tap = identity,
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        config = self.config
        B, T, _ = x.shape
        K, G, H = config.num_kv_heads, config.num_heads // config.num_kv_heads, config.head_dim
        query = self._placed(self.query(x), "query_norm", rotation)
        query = tap("query", query).reshape(B, K, G, T, H)
        if not config.scale_attention:
            query *= H**0.5  # which the attention function divides by
        if not isinstance(context, LayerCache):
            context = self.project(x if context is None else context, rotation)
        key, value = tap("key", context.key), tap("value", context.value)
        if cache is not None and start is not None:
            cache = cache.write(key, value, start)
            key, value = cache.key, cache.value
        added = {} if bias is None else {"bias": bias}
        drop = not deterministic and config.dropout > 0
        out = self.attention(
            query,
            key,
            value,
            mask,
            causal=causal,
            dropout_rate=config.dropout,
            dropout_key=self.make_rng("dropout") if drop else None,
            tap=None if tap is identity else over_heads(tap),
            **added,
        )
        return self.output(tap("mixed", out.reshape(B, K * G, T, H))), cache


def source_keys(config: ModelConfig, params: Any, source: Float[Array, "B C D"]) -> LayerCache:
    """What the cross-attention of a Block with these params reads of an encoded source."""
    own = {"params": params["cross_attention"]}
    return Attention(config, parent=None).apply(own, source, method="project")  # pyright: ignore


class Block(AttendingModule):
    """Self-attention, cross-attention if it `has_context`, and feed-forward: residual branches.

    Pre-norm: x + f(norm(x)) (Xiong et al. 2020); post-norm: norm(x + f(x)) (Vaswani et al. 2017).
    Of R contexts each serves B / R rows. Returns the output and the cache, as Attention.
    """

    has_context: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "#B #T S"] | Segments | None = None,
        *,
        causal: bool = False,
        rotation: Rotation | None = None,
        bias: Float[Array, "#B N T S"] | None = None,
        cache: LayerCache | None = None,
        start: Int[Array, " B"] | None = None,
        context: Float[Array, "R C D"] | LayerCache | None = None,
        context_mask: Bool[Array, "#R #T C"] | None = None,
        deterministic: bool = True,
        tap: Tap = identity,
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        config = self.config
        pre = config.norm_position == "pre"

        def norm(x: Array, name: str) -> Float[Array, "B T D"]:
            return tap(f"{name}_norm", Norm(config, name=f"{name}_norm")(x))

        def add(x: Array, branch: Array, name: str) -> Float[Array, "B T D"]:
            branch = tap(name, Dropout(config.dropout)(branch, deterministic))
            x = with_summed_gradient(x + branch)
            return x if pre else norm(x, name)

        def normed(x: Array, name: str) -> Float[Array, "B T D"]:
            return norm(x, name) if pre else x

        x = tap("residual_in", x)
        branch, cache = Attention(config, self.attention, name="attention")(
            normed(x, "attention"),
            mask,
            causal=causal,
            rotation=rotation,
            bias=bias,
            cache=cache,
            start=start,
            deterministic=deterministic,
            tap=scoped(tap, "attention"),
        )
        x = tap("residual_after_attention", add(x, branch, "attention"))
        if (context is not None) != self.has_context:
            told = "needs a context" if self.has_context else "has no cross-attention for a context"
            raise ConfigError(f"this block {told}: model.architecture decides it")
        if context is not None:
            # Rows that share a context, as beams do, attend as one row with all their queries.
            rows = len(context.key if isinstance(context, LayerCache) else context)
            branch, _ = Attention(config, self.attention, name="cross_attention")(
                normed(x, "cross_attention").reshape(rows, -1, config.d_model),
                context_mask,
                context=context,
                deterministic=deterministic,
                tap=scoped(tap, "cross_attention"),
            )
            branch = branch.reshape(x.shape)
            x = tap("residual_after_cross_attention", add(x, branch, "cross_attention"))
        branch = FeedForward(config, name="feed_forward")(
            normed(x, "feed_forward"), scoped(tap, "feed_forward")
        )
        x = add(x, branch, "feed_forward")
        return tap("residual", x), cache


@partial(jax.jit, static_argnums=(0, 1))
def run_block(
    block: Block, tap: Tap, params: Any, x: Float[Array, "B T D"], block_args: dict[str, Any]
) -> tuple[Float[Array, "B T D"], LayerCache | None]:
    """A Block as a pure function, which is traced for the first of several layers alone."""
    return block.apply({"params": params}, x, tap=tap, **block_args)  # pyright: ignore
