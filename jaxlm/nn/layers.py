"""Small modules of every model: dense, norm, dropout, feed-forward, embeddings."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.config import ConfigError, ModelConfig
from jaxlm.nn.int8 import (
    Int8Matrix,
    matmul,
    matmul_from_heads,
    matmul_to_heads,
    matmul_transposed,
    weight,
)
from jaxlm.ops.positions import relative_buckets, sinusoids
from jaxlm.ops.random import dropout, normal
from jaxlm.ops.reductions import layer_norm, rms_norm

Tap = Callable[[str, Array], Array]


def gelu_tanh_slope(x: Array) -> Array:
    """The derivative of GELU's approximation by tanh."""
    a, b = 2 * (2 / math.pi) ** 0.5, 0.044715
    sigmoid = nn.sigmoid(a * (x + b * x**3))  # (1 + tanh) / 2
    return sigmoid + a * x * (1 + 3 * b * x**2) * sigmoid * (1 - sigmoid)


def silu_slope(x: Array) -> Array:
    """The derivative of x times its sigmoid."""
    sigmoid = (1 + jnp.tanh(x / 2)) / 2
    return sigmoid * (1 + x * (1 - sigmoid))


def with_slope(
    function: Callable[[Array], Array], slope: Callable[[Array], Array]
) -> Callable[[Array], Array]:
    """The function with this derivative, which has nothing in common with it but x.

    What they have in common, such as the tanh of a GELU, XLA keeps for the backward pass.
    """
    whole = jax.custom_jvp(function)
    whole.defjvps(lambda dx, _, x: slope(x) * dx)
    return whole


@jax.custom_jvp
def with_summed_gradient(x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """x; its gradient is summed up before it is passed on.

    It has a part from each later branch, and XLA's CPU backend would add them all up again in each
    layer, in time that grows with the square of the depth, and keep them until then.
    """
    return x


@with_summed_gradient.defjvp
def summed_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return primals[0], jax.lax.optimization_barrier(tangents[0])


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu_tanh": with_slope(partial(nn.gelu, approximate=True), gelu_tanh_slope),
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "silu": with_slope(nn.silu, silu_slope),
    "relu": nn.relu,
    "relu_squared": lambda x: jnp.square(nn.relu(x)),
}


def identity(name: str, x: Array) -> Array:
    """The tap that returns every activation unchanged."""
    return x


@dataclass(frozen=True)
class UniformTap:
    """A tap that treats all layers alike, and so works inside `scan_layers` and `remat`.

    `function` sees the hidden states (B, T, D) between blocks alone, as "embeddings", "residual"
    (after each block) and "final"; a sharding constraint is such a tap.
    """

    function: Tap

    def __call__(self, name: str, x: Array) -> Array:
        return self.function(name, x) if name in ("embeddings", "residual", "final") else x


def is_uniform(tap: Tap) -> bool:
    """Whether a tap does not tell one layer from another."""
    return tap is identity or isinstance(tap, UniformTap)


def scoped(tap: Tap, scope: str) -> Tap:
    """The tap of a submodule: it passes `name` on as `scope/name`."""
    return identity if is_uniform(tap) else lambda name, x: tap(f"{scope}/{name}", x)


def compute_dtype(config: ModelConfig) -> jnp.dtype:
    """Type of activations: the config's, else bfloat16 on an accelerator and float32 on a CPU."""
    fallback = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(config.compute_dtype or fallback)


def kernel_init(config: ModelConfig, *, residual: bool = False) -> nn.initializers.Initializer:
    """Normal with standard deviation 0.02 at width 768 (GPT-2), more in narrower models.

    `residual`: divided by sqrt(2 L) for the outputs of residual branches.
    """
    std = 0.02 * (768 / config.d_model) ** 0.5
    if residual:
        std /= (2 * config.num_layers) ** 0.5
    return lambda key, shape, dtype=jnp.float32: (std * normal(key, shape)).astype(dtype)


def token_init(config: ModelConfig) -> nn.initializers.Initializer:
    """As of a kernel, or with variance 1 after `scale_embeddings`."""
    if not config.scale_embeddings:
        return kernel_init(config)
    std = config.d_model**-0.5
    return lambda key, shape, dtype=jnp.float32: (std * normal(key, shape)).astype(dtype)


class ConfiguredModule(nn.Module):
    """Base of the modules that a ModelConfig describes; null fields of it are filled in."""

    config: ModelConfig

    def __post_init__(self):
        self.config = self.config.resolved()
        super().__post_init__()


class Dense(ConfiguredModule):
    """y = x @ kernel + bias; kernel (in, out) is kept in fp32, the product in the compute dtype.

    x is (*batch, I) and y (*batch, O); `heads` says which of them, "in" or "out", is in heads,
    (B, N, T, H) in place of (B, T, NH).
    Where its params hold a low-rank adapter (see `jaxlm.models.parameters`), that product is added.
    """

    features: int
    use_bias: bool
    residual: bool = False
    heads: Literal["in", "out"] | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*input"]) -> Float[Array, "*output"]:
        dtype, H = compute_dtype(self.config), self.config.head_dim
        from_x = matmul_from_heads if self.heads == "in" else matmul
        to_y = partial(matmul_to_heads, head_dim=H) if self.heads == "out" else matmul
        product = to_y if self.heads == "out" else from_x
        width = x.shape[-1] * (x.shape[1] if self.heads == "in" else 1)
        init = kernel_init(self.config, residual=self.residual)
        x = x.astype(dtype)
        y = product(x, weight(self, "kernel", init, (width, self.features)), dtype)
        if self.has_variable("params", "lora_a"):
            a, b, scale = (self.get_variable("params", f"lora_{n}") for n in ("a", "b", "scale"))
            y += to_y(from_x(x, a, dtype), scale * b, dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(dtype)
            y += bias.reshape(-1, 1, H) if self.heads == "out" else bias
        return y


class Norm(ConfiguredModule):
    """Layer or RMS norm as the config says, computed in fp32, returned in the type of x."""

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        config = self.config
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        if config.norm == "rmsnorm":
            return rms_norm(x, scale, config.norm_eps).astype(x.dtype)
        bias = self.param("bias", nn.initializers.zeros, scale.shape) if config.bias else None
        return layer_norm(x, scale, bias, config.norm_eps).astype(x.dtype)


class Dropout(nn.Module):
    """Dropout from the "dropout" stream; the identity when deterministic."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*shape"], deterministic: bool) -> Float[Array, "*shape"]:
        if deterministic or self.rate == 0:
            return x
        return dropout(x, self.rate, self.make_rng("dropout"))


class FeedForward(ConfiguredModule):
    """Two dense layers around an activation; gated: times a second projection (Shazeer 2020)."""

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], tap: Tap = identity) -> Float[Array, "B T D"]:
        config = self.config
        up = Dense(config, config.d_ff, config.bias, name="up")(x)
        activation = ACTIVATIONS[config.activation]
        if config.gated:
            hidden = activation(Dense(config, config.d_ff, config.bias, name="gate")(x)) * up
        else:
            hidden = activation(up)
        hidden = tap("hidden", hidden)
        return Dense(config, config.d_model, config.bias, residual=True, name="down")(hidden)


class Embeddings(ConfiguredModule):
    """The sum of token, position and token-type vectors; normalised with `embed_norm`.

    `num_tokens` is the size of its table of token vectors (None: vocab_size); with 0 it has none,
    and another's is passed to it.

    Raises: ConfigError where vocab_size or max_seq_len is null, or token types are passed to a
    model that has none.
    """

    num_tokens: int | None = None

    def setup(self):
        config, init = self.config, kernel_init(self.config)
        for name in ("vocab_size", "max_seq_len"):
            if getattr(config, name) is None:
                raise ConfigError(f"model.{name} must be given to build a model")
        num_tokens = config.vocab_size if self.num_tokens is None else self.num_tokens
        if num_tokens:
            self.tokens = weight(self, "tokens", token_init(config), (num_tokens, config.d_model))
        if config.positions == "learned":
            rows = config.max_seq_len + config.position_offset
            self.positions = self.param("positions", init, (rows, config.d_model))
        if config.positions == "relative":
            shape = (config.relative_buckets, config.num_heads)
            self.relative = self.param("relative", init, shape)
        if config.num_token_types:
            self.types = self.param("types", init, (config.num_token_types, config.d_model))
        if config.embed_norm:
            self.norm = Norm(config)
        self.dropout = Dropout(config.dropout)

    def __call__(
        self,
        ids: Int[Array, "B T"],
        positions: Int[Array, "#B T"],
        token_type_ids: Int[Array, "B T"] | None,
        deterministic: bool,
        tokens: Float[Array, "V D"] | Int8Matrix | None = None,
    ) -> Float[Array, "B T D={self.config.d_model}"]:
        config = self.config
        x = (self.tokens if tokens is None else tokens)[ids]
        if config.scale_embeddings:
            x *= config.d_model**0.5
        if config.positions == "learned":
            x += self.positions[positions + config.position_offset]
        elif config.positions == "sinusoidal":
            x += sinusoids(positions, config.d_model, config.sinusoid_layout)
        if config.num_token_types:
            x += self.types[jnp.zeros_like(ids) if token_type_ids is None else token_type_ids]
        elif token_type_ids is not None:
            raise ConfigError("token_type_ids were given, but model.num_token_types is 0")
        if config.embed_norm:
            x = self.norm(x)
        return self.dropout(x.astype(compute_dtype(config)), deterministic)

    def relative_bias(
        self, query: Int[Array, "#B T"], key: Int[Array, "#B S"], bidirectional: bool
    ) -> Float[Array, "B N T S"]:
        """What the distance of a key adds to the scores of each head (Raffel et al. 2020)."""
        sizes = self.config.relative_buckets, self.config.relative_distance
        buckets = relative_buckets(query, key, *sizes, bidirectional)
        return jnp.moveaxis(self.relative[buckets], -1, 1)

    def attend(
        self, x: Float[Array, "B T D"], product: Callable[..., Array] = matmul_transposed
    ) -> Float[Array, "B T V={self.config.vocab_size}"]:
        """Logits of a tied head: products with the token vectors (Press and Wolf 2017), in fp32."""
        return product(x, self.tokens, jnp.float32)
