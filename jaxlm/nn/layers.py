"""Dense, Norm and the feed-forward: the small modules every block is made of."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.config import ModelConfig
from jaxlm.nn.int8 import Int8Matrix, weight
from jaxlm.ops.norms import layer_norm, rms_norm
from jaxlm.ops.random import dropout, normal

Tap = Callable[[str, Array], Array]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "silu": nn.silu,
    "relu": nn.relu,
    "relu_squared": lambda x: jnp.square(nn.relu(x)),
}


def identity(name: str, x: Array) -> Array:
    """The tap that leaves every activation as it is."""
    return x


def scoped(tap: Tap, scope: str) -> Tap:
    """The tap under a prefix: a submodule's `weights` reaches its caller as `scope/weights`."""
    return tap if tap is identity else lambda name, x: tap(f"{scope}/{name}", x)


def compute_dtype(config: ModelConfig) -> jnp.dtype:
    """Type of activations: the config's, else bfloat16 on an accelerator and float32 on a CPU."""
    fallback = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(config.compute_dtype or fallback)


def kernel_init(config: ModelConfig, *, residual: bool = False) -> nn.initializers.Initializer:
    """Normal of GPT-2's 0.02 at width 768, wider below it; residual outputs shrink with depth."""
    std = 0.02 * (768 / config.d_model) ** 0.5
    if residual:
        std /= (2 * config.num_layers) ** 0.5
    return lambda key, shape, dtype=jnp.float32: (std * normal(key, shape)).astype(dtype)


class Dense(nn.Module):
    """y = x @ kernel + bias, with kernel (in, out) in fp32 and the product in the compute dtype.

    Where the params hold low-rank adapters (see `jaxlm.nn.lora`), their product is added.
    """

    features: int
    config: ModelConfig
    use_bias: bool
    residual: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:
        dtype = compute_dtype(self.config)
        init = kernel_init(self.config, residual=self.residual)
        kernel = weight(self, "kernel", init, (x.shape[-1], self.features))
        # Rows of a matrix: XLA's CPU backward of a 3-D product is slower.
        rows = x.astype(dtype).reshape(-1, x.shape[-1])
        if isinstance(kernel, Int8Matrix):
            y = kernel.product(rows).astype(dtype)
        else:
            y = rows @ kernel.astype(dtype)
        if self.has_variable("params", "lora_a"):
            a, b, scale = (self.get_variable("params", f"lora_{n}") for n in ("a", "b", "scale"))
            y += rows @ a.astype(dtype) @ (scale * b).astype(dtype)
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,)).astype(dtype)
        return y.reshape(*x.shape[:-1], self.features)


class Norm(nn.Module):
    """The config's normalisation, computed in fp32 and returned in the compute dtype."""

    config: ModelConfig

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


class FeedForward(nn.Module):
    """Two dense layers around an activation; gated: times a second projection (Shazeer 2020)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], tap: Tap = identity) -> Float[Array, "B T D"]:
        config = self.config
        up = Dense(config.d_ff, config, config.bias, name="up")(x)
        activation = ACTIVATIONS[config.activation]
        if config.gated:
            hidden = activation(Dense(config.d_ff, config, config.bias, name="gate")(x)) * up
        else:
            hidden = activation(up)
        hidden = tap("hidden", hidden)
        return Dense(config.d_model, config, config.bias, residual=True, name="down")(hidden)
