"""A config file and the command line's overrides, both strict, into a Config."""

import difflib
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from jaxlm.config.building import HELP, all_keys, build_config, near_keys, section_fields
from jaxlm.config.options import Config
from jaxlm.config.rules import ConfigError


def load_config(
    name: str | Path,
    overrides: Sequence[str] = (),
    presets: Mapping[str, Mapping[str, object]] | None = None,
    folder: Path = Path("configs"),
) -> Config:
    """Read a YAML file by path, or by name from `folder`, and apply `--section.field value` words.

    Raises ConfigError, in one sentence, on anything that is not a setting.
    """
    path = find_config(name, folder)
    settings = read_yaml(path)
    for section, fields in parse_overrides(overrides).items():
        settings[section] = section_fields(section, settings.get(section)) | fields
    run = section_fields("run", settings.get("run"))
    if run.get("name") is None:
        run["name"] = path.stem
    return build_config(settings | {"run": run}, presets)


def find_config(name: str | Path, folder: Path) -> Path:
    """An existing path first, then `folder`/NAME[.yaml]."""
    for path in (Path(name), folder / name, folder / f"{name}.yaml"):
        if os.path.isfile(path):  # unlike Path.is_file, False for a name the system refuses
            return path
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    near = difflib.get_close_matches(Path(name).stem, names, n=1)
    if os.path.isdir(name):
        inside = Path(name) / "config.yaml"
        hint = f"did you mean {inside}?" if inside.is_file() else "name a file in it"
        raise ConfigError(f"{name} is a folder, not a config file; {hint}")
    hint = f"did you mean {near[0]}?" if near else f"{folder} holds {', '.join(names) or 'none'}"
    raise ConfigError(f"there is no config file {str(name)!r}; {hint}")


class TextLoader(yaml.BaseLoader):
    """YAML whose scalars stay text, to be read by the type of their field, or plain null.

    So 3e-4 is a number, `yes` is not a truth value, and a run may be called 010 or 2024-01-01.
    """

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        return None if node.style is None and text in ("", "~", "null") else text

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = []
        for key, _ in node.value:
            if key.value in seen:
                problem = f"{key.value} is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.append(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, origin: object) -> Any:
    try:
        return yaml.load(text, TextLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{origin}, line {line}, is not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{origin} is not valid YAML: {' '.join(str(error).split())}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The file's sections and fields with every value as text, a list of texts, or None."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start} is wrong") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    settings = parse_yaml(text, path)
    if not isinstance(settings, dict | None):
        raise ConfigError(f"{path} must hold sections such as model and train")
    return settings or {}


def parse_overrides(words: Sequence[str]) -> dict[str, dict[str, object]]:
    """`--a.b value` and `--a.b=value` words as {a: {b: value}}; the last of a key counts.

    A value is text, or null, or a list in YAML's brackets.
    """
    settings: dict[str, dict[str, object]] = {}
    queue = list(words)
    while queue:
        word = queue.pop(0)
        key, equals, value = word.partition("=")
        section, _, field = key.removeprefix("--").partition(".")
        if not (key.startswith("--") and section and field):
            raise misplaced_word(word)
        if not equals and queue and not queue[0].startswith("--"):
            value = queue.pop(0)
        if not value:
            known = f"{section}.{field}" in all_keys()
            raise ConfigError(f"{key} needs a value") if known else misplaced_word(word)
        settings.setdefault(section, {})[field] = parse_value(key, value)
    return settings


def parse_value(key: str, text: str) -> object:
    if text == "null":
        return None
    return parse_yaml(text, key) if text.startswith("[") and text.endswith("]") else text


def misplaced_word(word: str) -> ConfigError:
    # A dash may have become a longer one on its way through a text editor.
    near = near_keys(word.partition("=")[0].lstrip("-–—").rpartition(".")[2])
    hint = f"did you mean --{' or --'.join(near)}?" if near else HELP
    return ConfigError(f"expected --section.field value, got {word!r}; {hint}")
