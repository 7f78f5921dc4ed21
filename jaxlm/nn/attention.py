"""Multi-head attention with grouped key heads: training, prefill, decoding, self and cross."""

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import ModelConfig
from jaxlm.nn.cache import LayerCache
from jaxlm.nn.layers import Dense, Tap, identity
from jaxlm.ops.attention import attention
from jaxlm.ops.norms import rms_norm
from jaxlm.ops.positions import Rotation, rotate


class Attention(nn.Module):
    """Attention of x over itself, over `context`, or over a cache that x is appended to."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "#B #T S"] | None = None,
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
            y = Dense(heads * H, config, config.qkv_bias, name=name)(y)
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
        out = attention(
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
        out = Dense(config.d_model, config, config.bias, residual=True, name="output")(out)
        return out, cache
