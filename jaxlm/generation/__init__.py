"""Generation: sampling rules, the decoding loop, and text in and out."""

from jaxlm.generation.batch import Batch, DraftModel
from jaxlm.generation.beam import Beams, beam_search
from jaxlm.generation.chat import Chat
from jaxlm.generation.decode import Scored, generate_tokens, score_tokens
from jaxlm.generation.filling import Filled, fill
from jaxlm.generation.programs import compiles
from jaxlm.generation.quantizing import Comparison, compare_params, quantized
from jaxlm.generation.settings import GenerationError, Settings
from jaxlm.generation.speculation import Lookup
from jaxlm.generation.text import best_texts, explain, generate, stream

__all__ = [
    "Batch",
    "Beams",
    "Chat",
    "Comparison",
    "DraftModel",
    "Filled",
    "GenerationError",
    "Lookup",
    "Scored",
    "Settings",
    "beam_search",
    "best_texts",
    "compare_params",
    "compiles",
    "explain",
    "fill",
    "generate",
    "generate_tokens",
    "quantized",
    "score_tokens",
    "stream",
]
