"""Loaded: a model with its weights and tokenizer, as loading returns it and everything takes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import Config, ModelConfig
from jaxlm.tokenizer import Tokenizer


@dataclass(frozen=True)
class Loaded:
    """A model, the params to evaluate it with, its tokenizer and its config.

    `origin` tells what is known of where it comes from: source, dtype, step, val_loss, data; and
    `run_config` how it was trained, if a run of jaxlm's has made it.
    """

    model: nn.Module
    params: Any
    tokenizer: Tokenizer
    config: ModelConfig
    origin: Mapping[str, Any] = field(default_factory=dict)
    run_config: Config | None = None


@dataclass(frozen=True)
class Placement:
    """Where loaded params go, and as what type.

    `sharding` is one for all, or gives each path (such as backbone/embed/tokens) its own; None: the
    first device.
    """

    sharding: jax.sharding.Sharding | Callable[[str], jax.sharding.Sharding] | None = None
    dtype: Any = jnp.float32

    def of(self, path: str) -> jax.sharding.Sharding:
        if self.sharding is None:
            return jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return self.sharding(path) if callable(self.sharding) else self.sharding

    def put(self, path: str, array: np.ndarray) -> jax.Array:
        """The array on its devices; each of them gets only its own part."""
        # Copied, as on a CPU an array could go on living in the file that it is mapped from.
        return jax.device_put(np.array(array, self.dtype), self.of(path))


FIRST_DEVICE = Placement()
