"""The error a wrong setting raises, and what the dataclasses of settings check and derive with."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    # Such a field may be written as null; its readers find the value derived from others.
    type Derived[T] = T
else:
    Derived = Optional
DERIVED: Any = None


class JaxlmError(Exception):
    """A mistake of the user's, told in one sentence; commands print it and exit with status 2."""


class ConfigError(JaxlmError):
    """A setting that is unknown, of the wrong type or out of range."""


RULES: dict[str, Callable[[Any], bool]] = {
    "positive": lambda value: value > 0,
    "at least 0": lambda value: value >= 0,
    "in [0, 2**32)": lambda value: 0 <= value < 2**32,
    "in [0, 1)": lambda value: 0 <= value < 1,
    "in [0, 1]": lambda value: 0 <= value <= 1,
    "in (0, 1)": lambda value: 0 < value < 1,
    "in (0, 1]": lambda value: 0 < value <= 1,
    "a text that is not empty": lambda value: value != "",
}


def check(section: object, prefix: str, rule: str, *names: str) -> None:
    """Raise ConfigError unless each named field of the section is null or keeps the rule."""
    for name in names:
        value = getattr(section, name)
        require(value is None or RULES[rule](value), f"{prefix}.{name}", rule, value)


def require(condition: bool, name: str, rule: str, value: object) -> None:
    if not condition:
        raise ConfigError(f"{name} must be {rule}, got {value!r}")


def filled(section: Any, **values: object) -> Any:
    """The section with each named field that is null set to its value."""
    missing = {name: v for name, v in values.items() if getattr(section, name) is None}
    return dataclasses.replace(section, **missing) if missing else section


def fill(section: object, **values: object) -> None:
    """Like `filled`, in place: for `__post_init__` of a frozen dataclass."""
    for name, value in values.items():
        if getattr(section, name) is None:
            object.__setattr__(section, name, value)
