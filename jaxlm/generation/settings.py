"""What a caller may set about generation, and the one place that checks it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import numpy as np

from jaxlm.config import JaxlmError
from jaxlm.config.rules import require


class GenerationError(JaxlmError):
    """A prompt that cannot be continued, or not in the way asked for."""


PastContext = Literal["slide", "refuse"]


class Rules(TypedDict, total=False):
    """The keyword arguments that every generating function takes beside its own.

    Each number may also be a sequence with one value a row.
    """

    min_p: Any
    repetition_penalty: Any
    presence_penalty: Any
    frequency_penalty: Any
    no_repeat_ngram: Any
    min_new_tokens: Any
    bias: Mapping[int, float]
    banned_tokens: Sequence[int]


@dataclass(frozen=True)
class Settings:
    """How one row is continued; ConfigError if a value is out of range.

    The penalties, the n-gram rule and the bias change logits first, in the order of the fields
    from `repetition_penalty` on; then temperature applies, top-k, top-p and min-p. The rules that
    look back see the tokens in the context: the prompt and what was generated, or what sliding
    has kept of them.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0  # 0 is greedy
    top_k: int | None = None  # None: all tokens
    top_p: float | None = None  # None: all of the probability
    min_p: float | None = None  # the share of the likeliest token's probability that a token needs
    repetition_penalty: float = 1.0  # divides (or multiplies) the logits of tokens in the context
    presence_penalty: float = 0.0  # subtracted once for a token generated before
    frequency_penalty: float = 0.0  # subtracted as often as a token was generated
    no_repeat_ngram: int | None = None  # no n tokens occur twice in the same order
    min_new_tokens: int = 0  # before so many, no stop token
    bias: Mapping[int, float] = field(default_factory=dict)  # added to the logits of tokens
    banned_tokens: Sequence[int] = ()
    stop_tokens: Sequence[int] = ()
    seed: int = 0  # taken modulo 2**32
    stream: int = 0  # the row draws from fold_in(key(seed), stream)
    past_context: PastContext = "slide"

    def __post_init__(self):
        for name, rule, holds in CHECKS:
            value = getattr(self, name)
            if value is not None:
                require(bool(holds(value)), name, rule, value)
        for name in ("temperature", "repetition_penalty", "presence_penalty", "frequency_penalty"):
            require(math.isfinite(getattr(self, name)), name, "finite", getattr(self, name))
        known = self.past_context in ("slide", "refuse")
        require(known, "past_context", "slide or refuse", self.past_context)


CHECKS = (
    ("max_new_tokens", "at least 1", lambda x: x >= 1),
    ("temperature", "finite and at least 0", lambda x: 0 <= x < math.inf),
    ("top_k", "at least 1", lambda x: x >= 1),
    ("top_p", "in (0, 1]", lambda x: 0 < x <= 1),
    ("min_p", "in [0, 1]", lambda x: 0 <= x <= 1),
    ("repetition_penalty", "positive", lambda x: x > 0),
    ("no_repeat_ngram", "at least 1", lambda x: x >= 1),
    ("min_new_tokens", "at least 0", lambda x: x >= 0),
)
PER_ROW = (
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "no_repeat_ngram",
    "min_new_tokens",
    "seed",
)


def settings_of_rows(num_rows: int, **values: Any) -> list[Settings]:
    """The settings of each row from keyword arguments, some of which may hold a value a row.

    Row i draws from stream i of a seed that all rows share, and from stream 0 of a seed of its own.
    """
    unknown = sorted(set(values) - {f.name for f in dataclasses.fields(Settings)})
    if unknown:
        raise GenerationError(f"generation has no setting {unknown[0]!r}")
    listed = {}
    for name in PER_ROW:
        if isinstance(values.get(name), list | tuple | np.ndarray):
            listed[name] = list(values.pop(name))
            if len(listed[name]) != num_rows:
                raise GenerationError(
                    f"{name} has {len(listed[name])} values for {num_rows} rows; give one a row"
                )
    rows = [{name: column[i] for name, column in listed.items()} for i in range(num_rows)]
    first, step = values.pop("stream", 0), 0 if "seed" in listed else 1
    Settings(**values)  # complains even where there are no rows
    return [Settings(**values, **row, stream=first + i * step) for i, row in enumerate(rows)]
