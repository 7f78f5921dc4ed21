"""The options of generation, each declared once: in `GenerationOptions`.

The checks, the keyword arguments that take a value a row, the arrays of the sampler and the
command line's options all come from there. `jaxlm --help` imports this file: it needs neither JAX
nor, before values are spread over rows, NumPy.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, get_args, get_origin

from jaxlm.config import JaxlmError
from jaxlm.config.schema import require

PastContext = Literal["slide", "refuse"]


class GenerationError(JaxlmError):
    """A prompt that cannot be continued, or not in the way asked for."""


class Range(NamedTuple):
    """Which numbers an option takes, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


FINITE = Range("finite", math.isfinite)
POSITIVE = Range("positive", lambda x: x > 0)
AT_LEAST_0 = Range("at least 0", lambda x: x >= 0)
AT_LEAST_1 = Range("at least 1", lambda x: x >= 1)
FINITE_AT_LEAST_0 = Range("finite and at least 0", lambda x: 0 <= x < math.inf)
FROM_0_TO_1 = Range("in [0, 1]", lambda x: 0 <= x <= 1)
ABOVE_0_TO_1 = Range("in (0, 1]", lambda x: 0 < x <= 1)


def generation_option(
    default: Any,
    help: str,
    range: Range = FINITE,
    *,
    below: float = 2**31,  # what the device can hold
    metavar: str | None = None,  # of the command line's option; None: there is none
    per_row: bool = True,  # whether a list gives each row its own value
    neutral: float = 0,  # the number that changes nothing, where the value is None
) -> Any:
    """A field of `GenerationOptions`; its annotation gives the type and says if None is allowed."""
    declared = {
        "help": help,
        "range": range,
        "below": below,
        "metavar": metavar,
        "per_row": per_row,
        "neutral": neutral,
    }
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=declared)
    return field(default=default, metadata=declared)


PAST_CONTEXT = "past the model's context: go on with the last half of it, or refuse"


@dataclass(frozen=True)
class GenerationOptions:
    """How one row is continued; ConfigError if a value is out of range.

    The penalties, the n-gram rule and the bias change logits first, in the order of the fields
    from `repetition_penalty` on; then temperature applies, top-k, top-p and min-p. The rules that
    look back see the tokens in the context: the prompt and what was generated, or what sliding
    has kept of them.
    """

    max_new_tokens: int = generation_option(64, "at most", AT_LEAST_1, metavar="N")
    temperature: float = generation_option(1.0, "0 is greedy", FINITE_AT_LEAST_0, metavar="X")
    top_k: int | None = generation_option(
        None, "sample among the N likeliest tokens", AT_LEAST_1, metavar="N", neutral=2**31 - 1
    )
    top_p: float | None = generation_option(
        None, "sample from the likeliest share of probability", ABOVE_0_TO_1, metavar="X", neutral=1
    )
    min_p: float | None = generation_option(
        None, "only tokens with this share of the likeliest's probability", FROM_0_TO_1, metavar="X"
    )
    repetition_penalty: float = generation_option(
        1.0, "above 1: tokens seen before become less likely", POSITIVE, metavar="X"
    )
    presence_penalty: float = generation_option(
        0.0, "subtracted once for a token generated before", metavar="X"
    )
    frequency_penalty: float = generation_option(
        0.0, "subtracted for each time it was generated", metavar="X"
    )
    no_repeat_ngram: int | None = generation_option(
        None, "no N tokens twice in the same order", AT_LEAST_1, metavar="N"
    )
    min_new_tokens: int = generation_option(
        0, "before so many the text does not end", AT_LEAST_0, metavar="N"
    )
    bias: Mapping[int, float] = generation_option(
        {}, "added to the logits of tokens; -inf bans one"
    )
    banned_tokens: Sequence[int] = generation_option((), "never generated")
    forced_first: int | None = generation_option(
        None, "the token that a row begins with", AT_LEAST_0, neutral=-1
    )
    forced_last: int | None = generation_option(
        None, "the token that a row of max_new_tokens ends with", AT_LEAST_0, neutral=-1
    )
    stop_tokens: Sequence[int] = generation_option((), "the first of them ends a row")
    # Only its last 32 bits count.
    seed: int = generation_option(0, "of the random draws", below=math.inf, metavar="N")
    row: int = generation_option(0, "draws from fold_in(key(seed), row)", AT_LEAST_0, per_row=False)
    past_context: Literal["slide", "refuse"] = generation_option(
        "slide", PAST_CONTEXT, per_row=False
    )

    def __post_init__(self):
        for declared in OPTIONS.values():
            declared.check(getattr(self, declared.name))
        most = f"at most max_new_tokens ({self.max_new_tokens})"
        require(
            self.min_new_tokens <= self.max_new_tokens, "min_new_tokens", most, self.min_new_tokens
        )

    def check_tokens(self, vocab_size: int) -> None:
        """Raise GenerationError where bias or bans name a token that is none, or leave none."""
        forced = [t for t in (self.forced_first, self.forced_last) if t is not None]
        for name, tokens in (
            ("bias", self.bias),
            ("banned_tokens", self.banned_tokens),
            ("a forced token", forced),
        ):
            for token in tokens:
                if not 0 <= token < vocab_size:
                    raise GenerationError(
                        f"{name} names token {token}, but the model's are 0 to {vocab_size - 1}"
                    )
        banned = {token for token, added in self.bias.items() if added == -math.inf}
        if len(banned.union(self.banned_tokens)) == vocab_size:
            raise GenerationError("bias and banned_tokens leave no token that could come next")


NUMBERS = {int: (Integral, "a whole number"), float: (Real, "a number")}


def is_number(value: Any, kind: type) -> bool:
    """Whether a value is one of these numbers, which Python's True and False are not here."""
    return isinstance(value, kind) and not isinstance(value, bool)


class PerRow(list):
    """Values of an option, one a row."""


@dataclass(frozen=True)
class Option:
    """What the fields of `GenerationOptions` declare, one of them."""

    name: str
    default: Any
    type: Any  # int, float, or that of the annotation
    optional: bool  # None is allowed
    choices: tuple[str, ...]  # the words that it takes, if it takes words
    help: str
    range: Range
    below: float
    metavar: str | None
    per_row: bool
    neutral: float

    @classmethod
    def of(cls, declared: Field) -> "Option":
        kinds = get_args(declared.type)
        optional = type(None) in kinds
        choices = kinds if get_origin(declared.type) is Literal else ()
        default = {} if declared.default is MISSING else declared.default
        kind = kinds[0] if optional else declared.type
        return cls(declared.name, default, kind, optional, choices, **declared.metadata)

    @property
    def is_number(self) -> bool:
        return self.type in NUMBERS

    @property
    def wanted(self) -> str:
        """What a value that is no number must be, in words."""
        if self.choices:
            return " or ".join(self.choices)
        mapping = get_origin(self.type) is Mapping
        return "a number for each token of a mapping" if mapping else "a list of token ids"

    def check(self, value: Any) -> None:
        """Raise ConfigError unless it is a value of this option for one row."""
        if self.choices:
            require(value in self.choices, self.name, self.wanted, value)
        elif not self.is_number:
            known = all(is_number(token, Integral) for token in value)
            require(known, self.name, self.wanted, value)
            if isinstance(value, Mapping):
                known = all(is_number(x, Real) and x < math.inf for x in value.values())
                require(known, self.name, "numbers by token id, minus infinity among them", value)
        elif not (value is None and self.optional):
            kind, words = NUMBERS[self.type]
            require(is_number(value, kind), self.name, words, value)
            assert value is not None
            require(bool(self.range.holds(value)), self.name, self.range.words, value)
            require(abs(value) < self.below, self.name, "below 2**31", value)

    def spread(self, value: Any) -> Any:
        """The value for all rows, or PerRow where it is an array-like of values."""
        import numpy as np

        if not self.per_row:
            return value
        if not self.is_number:
            return self._spread_tokens(value)
        array = np.asarray(value, dtype=object)
        if array.ndim > 1:
            raise GenerationError(
                f"{self.name} must be a number, or one a row; got a shape {array.shape}"
            )
        # Numbers of JAX and NumPy become Python's.
        values = [x.item() if hasattr(x, "item") else x for x in array.reshape(-1)]
        return PerRow(values) if array.ndim else values[0]

    def _spread_tokens(self, value: Any) -> Any:
        import numpy as np

        try:
            if get_origin(self.type) is Mapping:
                return value if isinstance(value, Mapping) else PerRow(dict(x) for x in value)
            arrays = [np.asarray(x) for x in value]
            if all(x.ndim == 0 for x in arrays):
                return [x.item() for x in arrays]
            if all(x.ndim == 1 for x in arrays):
                return PerRow(x.tolist() for x in arrays)
        except (TypeError, ValueError):
            pass
        raise GenerationError(
            f"{self.name} must be {self.wanted}, or one of them a row; got {value!r}"
        )


OPTIONS = {declared.name: Option.of(declared) for declared in fields(GenerationOptions)}


def options_of_rows(num_rows: int, **values: Any) -> list[GenerationOptions]:
    """The options of each row from keyword arguments, some of which may hold a value a row.

    Row i draws as row i of a seed that all share, and as row 0 of a seed of its own. Raises
    GenerationError or ConfigError for names and values that no option has.
    """
    unknown = sorted(set(values) - set(OPTIONS))
    if unknown:
        raise GenerationError(f"generation has no option {unknown[0]!r}")
    shared = {name: OPTIONS[name].spread(value) for name, value in values.items()}
    own = {name: column for name, column in shared.items() if isinstance(column, PerRow)}
    for name, column in own.items():
        del shared[name]
        if len(column) != num_rows:
            raise GenerationError(
                f"{name} has {len(column)} values for {num_rows} rows; give one a row"
            )
    first, step = GenerationOptions(**shared).row, 0 if "seed" in own else 1
    rows = [{name: column[i] for name, column in own.items()} for i in range(num_rows)]
    return [
        GenerationOptions(**{**shared, **row, "row": first + i * step})
        for i, row in enumerate(rows)
    ]
