"""Nested mappings, checked key by key and value by value, into a Config, and back to YAML."""

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, Literal

import yaml

from jaxlm.config.model import ModelConfig
from jaxlm.config.options import Config
from jaxlm.config.rules import ConfigError

RUN_FORMAT = 1
HELP = "python train.py --help lists them all"


def build_config(
    settings: Mapping[str, Any], presets: Mapping[str, Mapping[str, object]] | None = None
) -> Config:
    """Make a Config of {section: {field: value}}; a value may be text, as a YAML file gives it.

    `presets` maps each `model.preset` to the fields it stands for; a resolved config, which holds
    every field of the model, needs none. Raises ConfigError on anything that is not a setting.
    """
    settings = dict(settings)
    run_format = settings.pop("run_format", RUN_FORMAT)
    if str(run_format) != str(RUN_FORMAT):
        raise ConfigError(f"this jaxlm reads run_format {RUN_FORMAT}, not {run_format}")
    kinds = section_kinds()
    built = {}
    for name, values in settings.items():
        if name not in kinds:
            raise unknown_section(str(name))
        fields = section_fields(name, values)
        if name == "model":
            fields = expand_preset(fields, presets or {})
        built[name] = build_section(name, kinds[name], fields)
    return Config(**built)


def to_settings(config: Config) -> dict[str, Any]:
    """The config with every field as nested mappings, from which `build_config` makes it again."""
    return {"run_format": RUN_FORMAT, **dataclasses.asdict(config)}


def to_yaml(config: Config) -> str:
    """The settings as `config.yaml` in a run directory holds them."""
    return yaml.safe_dump(to_settings(config), sort_keys=False, allow_unicode=True)


def section_kinds() -> dict[str, type]:
    """The dataclass of each section, by name."""
    return {f.name: typing.cast(type, f.type) for f in dataclasses.fields(Config)}


def section_fields(name: str, values: object) -> dict[str, object]:
    """What a section holds; an empty section of a YAML file is null."""
    if not isinstance(values, Mapping | NoneType):
        raise ConfigError(f"{name} is a section and must hold fields, got {values!r}")
    return dict(values or {})


def expand_preset(
    fields: dict[str, object], presets: Mapping[str, Mapping[str, object]]
) -> dict[str, object]:
    """The preset's fields, overridden by those that are given."""
    preset = fields.get("preset")
    if preset is None or all(f.name in fields for f in dataclasses.fields(ModelConfig)):
        return fields
    if not isinstance(preset, str) or preset not in presets:
        raise not_among("model.preset", preset, presets)
    return {**presets[preset], **fields}


def build_section(name: str, kind: type, fields: Mapping[str, object]) -> Any:
    types = typing.get_type_hints(kind)
    converted = {}
    for key, value in fields.items():
        if key not in types:
            raise unknown_field(name, str(key))
        converted[key] = convert(f"{name}.{key}", value, types[key])
    return kind(**converted)


def unknown_section(name: str) -> ConfigError:
    kinds = section_kinds()
    if any(key.endswith(f".{name}") for key in all_keys()):
        hint = f"write {' or '.join(near_keys(name))}"
    elif near := difflib.get_close_matches(name, kinds, n=1):
        hint = f"did you mean {near[0]}?"
    else:
        hint = f"the sections are {', '.join(kinds)}"
    return ConfigError(f"{name} is not a known section; {hint}")


def unknown_field(section: str, name: str) -> ConfigError:
    near = near_keys(name, section)
    hint = f"did you mean {' or '.join(near)}?" if near else HELP
    return ConfigError(f"{section}.{name} is not a known field; {hint}")


def near_keys(name: str, section: str = "") -> list[str]:
    """Keys with this very field name, else the one nearest in the section, else in any."""
    keys = all_keys()
    if same := [key for key in keys if key.endswith(f".{name}")]:
        return same
    for candidates in ([key for key in keys if key.startswith(f"{section}.")], keys):
        fields = [key.partition(".")[2] for key in candidates]
        if near := difflib.get_close_matches(name, fields, n=1):
            return [candidates[fields.index(near[0])]]
    return []


def all_keys() -> list[str]:
    """Every section.field."""
    kinds = section_kinds()
    return [f"{s}.{f.name}" for s, kind in kinds.items() for f in dataclasses.fields(kind)]


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
    """False too for bytes of the command line that were not UTF-8, which come as surrogates."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def convert_texts(name: str, value: object) -> tuple[str, ...]:
    """A list of texts, or one text; a text that looks like half a list is taken for a mistake."""
    texts = [value] if isinstance(value, str) and not value.startswith("[") else value
    if isinstance(texts, list | tuple) and all(map(is_text, texts)):
        return tuple(texts)
    raise ConfigError(f"{name} must be a text or a list such as [one, two], got {value!r}")


def convert_number(name: str, value: object, kind: type) -> int | float:
    """An int may be written 1e3; infinities and NaN are refused."""
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        number = float(value)
        if not math.isfinite(number) or (kind is int and not number.is_integer()):
            raise ValueError
    except (ValueError, OverflowError):
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name} must be {wanted}, got {value!r}") from None
    if kind is float:
        return number
    # A float is exact to 2**53 only, so plain digits are read as they stand.
    return int(value) if str(value).lstrip("-").isdecimal() else int(number)
