"""Generation: the rules over logits, the decoding loop, and text in and out.

Public names are imported on first use: the command line reads the options before it needs JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxlm.generation.batch import DecodingBatch
    from jaxlm.generation.beams import Beams, beam_search
    from jaxlm.generation.chat import Chat
    from jaxlm.generation.options import GenerationError, GenerationOptions
    from jaxlm.generation.quantize import Comparison, compare_params, quantized
    from jaxlm.generation.speculation import DraftModel, Lookup
    from jaxlm.generation.text import Filled, best_texts, explain, fill, generate, stream
    from jaxlm.generation.tokens import Scored, generate_tokens, score_tokens
    from jaxlm.generation.translation import translate

_HOMES = {
    "Beams": "beams",
    "Chat": "chat",
    "Comparison": "quantize",
    "DecodingBatch": "batch",
    "DraftModel": "speculation",
    "Filled": "text",
    "GenerationError": "options",
    "GenerationOptions": "options",
    "Lookup": "speculation",
    "Scored": "tokens",
    "beam_search": "beams",
    "best_texts": "text",
    "compare_params": "quantize",
    "explain": "text",
    "fill": "text",
    "generate": "text",
    "generate_tokens": "tokens",
    "quantized": "quantize",
    "score_tokens": "tokens",
    "stream": "text",
    "translate": "translation",
}

__all__ = [
    "Beams",
    "Chat",
    "Comparison",
    "DecodingBatch",
    "DraftModel",
    "Filled",
    "GenerationError",
    "GenerationOptions",
    "Lookup",
    "Scored",
    "beam_search",
    "best_texts",
    "compare_params",
    "explain",
    "fill",
    "generate",
    "generate_tokens",
    "quantized",
    "score_tokens",
    "stream",
    "translate",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"jaxlm.generation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'jaxlm.generation' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
