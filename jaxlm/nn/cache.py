"""The KV cache: keys and values of the tokens that were decoded before."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.config import ModelConfig
from jaxlm.nn.layers import compute_dtype

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
