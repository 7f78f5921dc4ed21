"""Sections of a config: typed options with a meaning and a rule, strictly checked."""

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from numbers import Real
from types import MappingProxyType, NoneType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Optional

if TYPE_CHECKING:
    # May be null as written. `resolved()` fills it in, so readers need not check for null.
    type Derived[T] = T
else:
    Derived = Optional

# What an option affects; lists of fields elsewhere are selected by these roles:
#   structure  what the model computes; its weights fit no other value
#   head       the head that the task trains
#   training   training only
#   execution  speed and memory, not the function computed
#   name       a label without effect
#   place      where a run is kept and computed, and how it starts
#   cadence    how often something is logged, saved or sampled
Role = Literal["structure", "head", "training", "execution", "name", "place", "cadence"]


class JaxlmError(Exception):
    """A user's mistake, explained in one sentence; commands print it and exit with status 2."""


class ConfigError(JaxlmError):
    """A config value that is unknown, of the wrong type or out of range."""


RULES: dict[str, Callable[[Any], bool]] = {
    "positive": lambda value: value > 0,
    "positive or -1": lambda value: value > 0 or value == -1,
    "at least 0": lambda value: value >= 0,
    "at least 1": lambda value: value >= 1,
    "in [0, 2**32)": lambda value: 0 <= value < 2**32,
    "in [1, 1000]": lambda value: 1 <= value <= 1000,
    "in [1, 10**7]": lambda value: 1 <= value <= 10**7,
    "in [0, 1)": lambda value: 0 <= value < 1,
    "in [0, 1]": lambda value: 0 <= value <= 1,
    "in (0, 1)": lambda value: 0 < value < 1,
    "in (0, 1]": lambda value: 0 < value <= 1,
    "a text that is not empty": lambda value: value != "",
}


def option(
    default: Any,
    meaning: str,
    rule: str | None = None,
    *,
    role: Role = "training",
    filled_by: Literal["data", "task", "device"] | None = None,
    tasks: tuple[str, ...] = (),
    formerly: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """A field of a section: its default, its meaning, and the rule that its values follow.

    `filled_by` names what fills in a null that the rest of the config does not; `tasks` are the
    tasks that have this option, all if empty; `formerly` are values of older configs, with what
    each is called now.
    """
    metadata = {"meaning": meaning, "rule": rule, "role": role, "filled_by": filled_by}
    metadata |= {"tasks": tasks, "formerly": formerly}
    return dataclasses.field(default=default, metadata=metadata)


# A field that decides what the model computes.
structure = partial(option, role="structure")


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a config: a frozen dataclass whose fields are options.

    A value may be text, as YAML and the command line give it; ConfigError for one of the wrong type
    or out of range.
    """

    title: ClassVar[str]

    def __post_init__(self):
        kinds = types_of(type(self))
        for field in dataclasses.fields(self):
            name, rule = f"{self.title}.{field.name}", field.metadata["rule"]
            value: Any = convert(name, getattr(self, field.name), kinds[field.name])
            object.__setattr__(self, field.name, value)
            if value is not None and rule is not None:
                require(RULES[rule](value), name, rule, value)
                # Integers on a device have 32 bits.
                small = not isinstance(value, int) or value < 2**31 or "2**32" in rule
                require(small, name, "below 2**31", value)


def require(condition: bool, name: str, rule: str, value: object) -> None:
    """Raise ConfigError, which says what the value must be, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{name} must be {rule}, got {value!r}")


def filled[S](section: S, **values: object) -> S:
    """The section with each named field that is null set to its value."""
    missing = {name: v for name, v in values.items() if getattr(section, name) is None}
    return dataclasses.replace(section, **missing) if missing else section  # pyright: ignore


def fields_with_role(section: type, *roles: Role) -> tuple[str, ...]:
    """The names of a section's options that have one of the roles."""
    return tuple(f.name for f in dataclasses.fields(section) if f.metadata["role"] in roles)


def build_section(kind: type, values: Mapping[str, object], keys: Iterable[str] = ()) -> Any:
    """A section from fields that may be text, as YAML and the command line give them.

    `keys` are the section.field names of all sections, to suggest where a misplaced field belongs.

    Raises: ConfigError for an unknown field, or a value of the wrong type or out of range.
    """
    own = {f.name: f.metadata["formerly"] for f in dataclasses.fields(kind)}
    read = {}
    for name, value in values.items():
        if name not in own:
            raise unknown_field(kind.title, str(name), list(keys) or list(own))
        read[name] = own[name].get(str(value).lower(), value)
    return kind(**read)


@functools.cache
def types_of(kind: type) -> dict[str, Any]:
    """The type of each field of a section."""
    return typing.get_type_hints(kind)


def unknown_field(section: str, name: str, keys: list[str]) -> ConfigError:
    near = near_keys(name, keys, section)
    hint = f"did you mean {' or '.join(near)}?" if near else "python train.py --help lists them all"
    return ConfigError(f"{section}.{name} is not a known field; {hint}")


def near_keys(name: str, keys: list[str], section: str = "") -> list[str]:
    """Keys with exactly this field name, else the closest in the section, else in any section."""
    if same := [key for key in keys if key.endswith(f".{name}")]:
        return same
    for candidates in ([key for key in keys if key.startswith(f"{section}.")], keys):
        fields = [key.rpartition(".")[2] for key in candidates]
        if near := difflib.get_close_matches(name, fields, n=1):
            return [candidates[fields.index(near[0])]]
    return []


def not_among(name: str, value: object, allowed: Iterable[str]) -> ConfigError:
    return ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def convert(name: str, value: object, kind: Any) -> object:
    """The value as the field's type; text such as 3e-4 or true is read as that type."""
    choices = typing.get_args(kind)
    nullable = NoneType in choices
    if nullable:
        (kind,) = (choice for choice in choices if choice is not NoneType)
        choices = typing.get_args(kind)
    if value is None:
        if nullable:
            return None
        raise ConfigError(f"{name} must not be null")
    if typing.get_origin(kind) is Literal:
        if value in choices:
            return value
        raise not_among(name, value, (*choices, "null") if nullable else choices)
    if typing.get_origin(kind) is tuple:
        return convert_texts(name, value)
    if kind is bool:
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return value == "true"
        raise ConfigError(f"{name} must be true or false, got {value!r}")
    if kind is str:
        if is_text(value):
            return value
        raise ConfigError(f"{name} must be a text, got {value!r}")
    return convert_number(name, value, kind)


def is_text(value: object) -> bool:
    """False also for command-line bytes that are not UTF-8, which Python gives as surrogates."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def convert_texts(name: str, value: object) -> tuple[str, ...]:
    """A list of texts, or one text; a text that starts like a list is refused as a mistake."""
    texts = [value] if isinstance(value, str) and not value.startswith("[") else value
    if isinstance(texts, list | tuple) and all(map(is_text, texts)):
        return tuple(texts)
    raise ConfigError(f"{name} must be a text or a list such as [one, two], got {value!r}")


def convert_number(name: str, value: Any, kind: type) -> int | float:
    """An int may be written 1e3; infinities and NaN are refused."""
    try:
        if isinstance(value, bool) or not isinstance(value, str | Real):
            raise ValueError
        number = float(value)  # pyright: ignore
        if not math.isfinite(number) or (kind is int and not number.is_integer()):
            raise ValueError
    except (ValueError, OverflowError):
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name} must be {wanted}, got {value!r}") from None
    if kind is float:
        return number
    # Floats are exact only up to 2**53, so plain digits are read as an int.
    return int(value) if str(value).lstrip("-").isdecimal() else int(number)  # pyright: ignore
