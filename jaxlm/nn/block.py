"""The one Block: encoder and decoder, training and decoding, with or without cross-attention."""

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import ModelConfig
from jaxlm.nn.attention import Attention
from jaxlm.nn.cache import LayerCache
from jaxlm.nn.layers import Dropout, FeedForward, Norm, Tap, identity, scoped
from jaxlm.ops.positions import Rotation


class Block(nn.Module):
    """Self-attention, optional cross-attention and feed-forward, each a residual branch.

    Pre-norm: x + f(norm(x)) (Xiong et al. 2020); post-norm: norm(x + f(x)) (Vaswani et al. 2017).
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "#B #T S"] | None = None,
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

        branch, cache = Attention(config, name="attention")(
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
            branch, _ = Attention(config, name="cross_attention")(
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
