"""Generation: sampling rules, the decoding loop, and text in and out."""

from jaxlm.generation.decode import generate_tokens
from jaxlm.generation.filling import Filled, fill
from jaxlm.generation.settings import GenerationError, Settings
from jaxlm.generation.text import generate

__all__ = ["Filled", "GenerationError", "Settings", "fill", "generate", "generate_tokens"]
