"""What a caller may set about generation, and the one place that checks it."""

import math
from dataclasses import dataclass
from typing import Literal

from jaxlm.config import JaxlmError
from jaxlm.config.rules import require


class GenerationError(JaxlmError):
    """A prompt that cannot be continued."""


PastContext = Literal["slide", "refuse"]


@dataclass(frozen=True)
class Settings:
    """How many tokens to generate and how to choose them; ConfigError if one is out of range."""

    max_new_tokens: int = 64
    temperature: float = 1.0  # 0 is greedy
    top_k: int | None = None  # None: all tokens
    top_p: float | None = None  # None: all of the probability
    seed: int = 0  # taken modulo 2**32
    past_context: PastContext = "slide"

    def __post_init__(self):
        top_k, top_p = self.top_k, self.top_p
        require(self.max_new_tokens >= 1, "max_new_tokens", "at least 1", self.max_new_tokens)
        finite = 0 <= self.temperature < math.inf
        require(finite, "temperature", "finite and at least 0", self.temperature)
        require(top_k is None or top_k >= 1, "top_k", "at least 1", top_k)
        require(top_p is None or 0 < top_p <= 1, "top_p", "in (0, 1]", top_p)
        known = self.past_context in ("slide", "refuse")
        require(known, "past_context", "slide or refuse", self.past_context)
