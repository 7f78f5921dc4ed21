"""What a caller may set about generation, and the one place that checks it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal, TypedDict

import numpy as np
from jaxtyping import Array

from jaxlm.config import JaxlmError
from jaxlm.config.schema import require


class GenerationError(JaxlmError):
    """A prompt that cannot be continued, or not in the way asked for."""


PastContext = Literal["slide", "refuse"]
# One value, or one a row.
Numbers = float | Sequence[float] | np.ndarray | Array
WholeNumbers = int | Sequence[int] | np.ndarray | Array
TokenIds = Sequence[int] | Sequence[Sequence[int]] | np.ndarray | Array


class Rules(TypedDict, total=False):
    """The keyword arguments that every generating function takes beside its own; see `Settings`."""

    min_p: Numbers | None
    repetition_penalty: Numbers
    presence_penalty: Numbers
    frequency_penalty: Numbers
    no_repeat_ngram: WholeNumbers | None
    min_new_tokens: WholeNumbers
    bias: Mapping[int, float] | Sequence[Mapping[int, float]]
    banned_tokens: TokenIds
    row: int


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
    min_new_tokens: int = 0  # so many come before a stop token, or before one ends a stop string
    bias: Mapping[int, float] = field(default_factory=dict)  # added to the logits of tokens
    banned_tokens: Sequence[int] = ()
    stop_tokens: Sequence[int] = ()
    seed: int = 0  # taken modulo 2**32
    row: int = 0  # draws from fold_in(key(seed), row)
    past_context: PastContext = "slide"

    def __post_init__(self):
        for name, kind in NUMBERS.items():
            if name in OPTIONAL and getattr(self, name) is None:
                continue
            value = getattr(self, name)
            require(isinstance(value, kind), name, WANTED[kind], value)
            rule, holds = CHECKS.get(name, ("finite", math.isfinite))
            require(bool(holds(value)), name, rule, value)
            # What the device can hold; of a seed it takes the last bits.
            require(name == "seed" or abs(value) < 2**31, name, "below 2**31", value)
        for name in ("banned_tokens", "stop_tokens"):
            tokens = getattr(self, name)
            require(all(isinstance(x, Integral) for x in tokens), name, LISTS[name], tokens)
        known = all(isinstance(t, Integral) and x < math.inf for t, x in self.bias.items())
        require(known, "bias", "numbers by token id, minus infinity among them", self.bias)
        known = self.past_context in ("slide", "refuse")
        require(known, "past_context", "slide or refuse", self.past_context)

    def check_tokens(self, vocab_size: int) -> None:
        """Raise GenerationError where bias or bans name a token that the model does not have."""
        for name in ("bias", "banned_tokens"):
            for token in getattr(self, name):
                if not 0 <= token < vocab_size:
                    raise GenerationError(
                        f"{name} names token {token}, but the model's are 0 to {vocab_size - 1}"
                    )


WANTED = {Integral: "a whole number", Real: "a number"}
NUMBERS = {
    "max_new_tokens": Integral,
    "temperature": Real,
    "top_k": Integral,
    "top_p": Real,
    "min_p": Real,
    "repetition_penalty": Real,
    "presence_penalty": Real,
    "frequency_penalty": Real,
    "no_repeat_ngram": Integral,
    "min_new_tokens": Integral,
    "seed": Integral,
    "row": Integral,
}
LISTS = {
    "bias": "a number for each token of a mapping",
    "banned_tokens": "a list of token ids",
    "stop_tokens": "a list of token ids",
}
OPTIONAL = ("top_k", "top_p", "min_p", "no_repeat_ngram")
CHECKS = {
    "max_new_tokens": ("at least 1", lambda x: x >= 1),
    "temperature": ("finite and at least 0", lambda x: 0 <= x < math.inf),
    "top_k": ("at least 1", lambda x: x >= 1),
    "top_p": ("in (0, 1]", lambda x: 0 < x <= 1),
    "min_p": ("in [0, 1]", lambda x: 0 <= x <= 1),
    "repetition_penalty": ("positive", lambda x: x > 0),
    "no_repeat_ngram": ("at least 1", lambda x: x >= 1),
    "min_new_tokens": ("at least 0", lambda x: x >= 0),
    "row": ("at least 0", lambda x: x >= 0),
}


def settings_of_rows(num_rows: int, **values: Any) -> list[Settings]:
    """The settings of each row from keyword arguments, some of which may hold a value a row.

    Row i draws as row i of a seed that all share, and as row 0 of a seed of its own.
    """
    unknown = sorted(set(values) - {f.name for f in dataclasses.fields(Settings)})
    if unknown:
        raise GenerationError(f"generation has no setting {unknown[0]!r}")
    given: dict[str, Any] = {name: spread(name, value) for name, value in values.items()}
    listed = {name: value for name, value in given.items() if isinstance(value, PerRow)}
    for name, column in listed.items():
        if len(column) != num_rows:
            raise GenerationError(
                f"{name} has {len(column)} values for {num_rows} rows; give one a row"
            )
    shared: dict[str, Any] = {name: value for name, value in given.items() if name not in listed}
    first, step = Settings(**shared).row, 0 if "seed" in listed else 1
    rows = [{name: column[i] for name, column in listed.items()} for i in range(num_rows)]
    return [Settings(**{**shared, **row, "row": first + i * step}) for i, row in enumerate(rows)]


def check_prompts(prompts: Sequence[Sequence[int]], vocab_size: int) -> None:
    """Raise GenerationError unless each prompt has tokens, and only those of the model."""
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise GenerationError(f"prompt {i} is empty; a model continues one token or more")
        wrong = next((token for token in prompt if not 0 <= token < vocab_size), None)
        if wrong is not None:
            raise GenerationError(
                f"prompt {i} holds token {wrong}, but the model's are 0 to {vocab_size - 1}"
            )


class PerRow(list):
    """Values of a setting, one a row."""


def spread(name: str, value: Any) -> Any:
    """A setting's value for all rows, or PerRow where it is any array-like of values."""
    if name in LISTS:
        return spread_lists(name, value)
    if name not in NUMBERS or name == "row":
        return value
    array = np.asarray(value, dtype=object)
    if array.ndim > 1:
        raise GenerationError(f"{name} must be a number, or one a row; got a shape {array.shape}")
    # Numbers of JAX and NumPy become Python's.
    values = [x.item() if hasattr(x, "item") else x for x in array.reshape(-1)]
    return PerRow(values) if array.ndim else values[0]


def spread_lists(name: str, value: Any) -> Any:
    """As `spread`, of a mapping or a list of token ids."""
    try:
        if name == "bias":
            return value if isinstance(value, Mapping) else PerRow(dict(x) for x in value)
        arrays = [np.asarray(x) for x in value]
        if all(x.ndim == 0 for x in arrays):
            return [x.item() for x in arrays]
        if all(x.ndim == 1 for x in arrays):
            return PerRow(x.tolist() for x in arrays)
    except (TypeError, ValueError):
        pass
    raise GenerationError(f"{name} must be {LISTS[name]}, or one of them a row; got {value!r}")
