"""Loaded: a model with its params and tokenizer, as loading returns it and other parts take it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import Config, JaxlmError, ModelConfig
from jaxlm.tokenizer import Tokenizer

# Of an origin: the family, and how texts end.
INHERITED = ("model_type", "eos_token_ids", "generation_config")
INHERITED += ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Loaded:
    """A model, the params to evaluate it with, its tokenizer and its config.

    `origin` holds what is known of its source: source, dtype, step, val_loss, data; of a model of
    Hugging Face, or one tuned from it, also model_type, `eos_token_ids` (a list), and as
    `generation_config` the mapping in that file, where there is one. `run_config` is the config it
    was trained with, or None for a model from elsewhere. `merged` has, by path, the hashes of what
    adapted kernels were made of: see `jaxlm.base_model`.
    """

    model: nn.Module
    params: Any
    tokenizer: Tokenizer
    config: ModelConfig
    origin: Mapping[str, Any] = field(default_factory=dict)
    run_config: Config | None = None
    merged: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def inherited(origin: Mapping[str, Any]) -> dict[str, Any]:
    """What an origin tells of a model tuned from it, with the same tokenizer, too."""
    return {name: origin[name] for name in INHERITED if name in origin}


def check_loaded(loaded: Any) -> None:
    """Raise JaxlmError for what is no Loaded, such as the path of a model."""
    if not isinstance(loaded, Loaded):
        told = " ".join(f"{loaded!r:.60}".split())  # a module's has several lines
        raise JaxlmError(f"a model is what jaxlm.load returns, got {told}")


@dataclass(frozen=True)
class Placement:
    """The devices and the type of loaded params.

    `sharding` is one for all params or a function of a param's path; None means the first device.

    Raises: JaxlmError for a type that is not of floating point.
    """

    sharding: jax.sharding.Sharding | Callable[[str], jax.sharding.Sharding] | None = None
    dtype: Any = jnp.float32

    def __post_init__(self):
        try:
            kind = jnp.dtype(self.dtype)
        except TypeError:
            kind = None
        allowed = ("float32", "bfloat16", "float16") + ("float64",) * jax.config.jax_enable_x64
        if kind is None or kind.name not in allowed:
            raise JaxlmError(f"dtype must be one of {', '.join(allowed)}, got {self.dtype!r}")
        object.__setattr__(self, "dtype", kind)

    def of(self, path: str) -> jax.sharding.Sharding:
        if self.sharding is None:
            return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return self.sharding(path) if callable(self.sharding) else self.sharding

    def put(self, path: str, array: np.ndarray) -> jax.Array:
        """The array on its devices; each device gets only its own part.

        Raises: JaxlmError for values too large for the type.
        """
        with np.errstate(over="ignore"):
            # Copied, because on a CPU the result could share the memory of a mapped file.
            cast = np.array(array, self.dtype)
        return jax.device_put(self.finite({path: cast})[path], self.of(path))

    def finite(self, weights: dict[str, Any]) -> dict[str, Any]:
        """The weights. Raises: JaxlmError where some, finite before, are infinite in float16."""
        for path, cast in weights.items() if self.dtype == jnp.float16 else ():
            if not jnp.isfinite(cast).all():
                raise JaxlmError(
                    f"{path} holds values too large for float16: take float32 or bfloat16"
                )
        return weights


FIRST_DEVICE = Placement()
