"""jaxlm: small language models in JAX, from text to weights and back.

Public names are imported on first use, so that `import jaxlm` costs little more than jax and flax.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxlm import (
        config,
        data,
        generation,
        inspection,
        models,
        nn,
        ops,
        tokenizer,
        training,
    )
    from jaxlm.artifact import Loaded
    from jaxlm.config import Config, JaxlmError, ModelConfig, load_config
    from jaxlm.generation import generate, generate_tokens, translate
    from jaxlm.loading import export, load
    from jaxlm.models import CausalLM, Decoder, num_params, preset
    from jaxlm.tasks.embedding import embed
    from jaxlm.tasks.inference import predict
    from jaxlm.tokenizer import Tokenizer

__version__ = "0.1.0"

_HOMES = {
    "CausalLM": "models",
    "Config": "config",
    "Decoder": "models",
    "JaxlmError": "config",
    "Loaded": "artifact",
    "ModelConfig": "config",
    "Tokenizer": "tokenizer",
    "embed": "tasks.embedding",
    "export": "loading",
    "generate": "generation",
    "generate_tokens": "generation",
    "load": "loading",
    "load_config": "config",
    "num_params": "models",
    "predict": "tasks.inference",
    "preset": "models",
    "translate": "generation",
}
_MODULES = (
    "config",
    "data",
    "generation",
    "inspection",
    "models",
    "nn",
    "ops",
    "tokenizer",
    "training",
)

__all__ = [
    "CausalLM",
    "Config",
    "Decoder",
    "JaxlmError",
    "Loaded",
    "ModelConfig",
    "Tokenizer",
    "config",
    "data",
    "embed",
    "export",
    "generate",
    "generate_tokens",
    "generation",
    "inspection",
    "load",
    "load_config",
    "models",
    "nn",
    "num_params",
    "ops",
    "predict",
    "preset",
    "tokenizer",
    "training",
    "translate",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"jaxlm.{name}")
    if name in _HOMES:
        return getattr(import_module(f"jaxlm.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'jaxlm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
