"""Read a Config from a YAML file and command-line overrides, and write it as YAML."""

import dataclasses
import difflib
import os
import textwrap
import typing
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from jaxlm.config.model import ModelConfig
from jaxlm.config.presets import expand_preset
from jaxlm.config.schema import ConfigError, build_section, convert_number, near_keys
from jaxlm.config.sections import Config, options_of_tasks, section_keys, section_kinds
from jaxlm.config.task import TaskConfig

RUN_FORMAT = 2
TASK_OF_FORMAT_1 = {"clm": "causal_lm", "mlm": "masked_lm"}


def load_config(name: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file by path, or a recipe by name, and apply `--section.field value` words.

    Raises: ConfigError for an unknown field or a value out of range.
    """
    if not isinstance(name, str | Path):
        raise ConfigError(f"a config is named by a path or the name of a recipe, got {name!r}")
    if not (isinstance(overrides, list | tuple) and all(isinstance(w, str) for w in overrides)):
        raise ConfigError(
            f'overrides must be a list such as ["--train.steps", "100"], got {overrides!r:.60}'
        )
    path = find_config(name)
    sections, given = read_yaml(path), parse_overrides(overrides)
    for section, fields in given.items():
        sections[section] = section_fields(section, sections.get(section)) | fields
    asked = given.get("train", {}), given.get("optim", {})
    if "steps" in asked[0] and "warmup_steps" not in asked[1] and "run_format" not in sections:
        shorten_warmup(sections)
    run = section_fields("run", sections.get("run"))
    if run.get("name") is None:
        run["name"] = path.stem
    if "run_format" in sections and (path.parent / "environment.json").is_file():
        # The config of a run, which may have been moved or copied: its folder is the run's.
        run["dir"] = given.get("run", {}).get("dir", str(path.parent))
    return build_config(sections | {"run": run})


def shorten_warmup(sections: dict[str, Any]) -> None:
    """Shorten the warm-up of a file to `train.steps` of the command line."""
    optim = section_fields("optim", sections.get("optim"))
    steps, warmup = sections["train"]["steps"], optim.get("warmup_steps")
    if steps is None or warmup is None:
        return
    steps = convert_number("train.steps", steps, int)
    if convert_number("optim.warmup_steps", warmup, int) > steps > 0:
        sections["optim"] = optim | {"warmup_steps": steps}


def recipes_folder() -> Path:
    """The folder of the recipes: in an installed package, or next to it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find_config(name: str | Path) -> Path:
    """An existing path first, then the recipe NAME[.yaml]."""
    folder = recipes_folder()
    for path in (Path(name), folder / name, folder / f"{name}.yaml"):
        if os.path.isfile(path):  # unlike Path.is_file, False for a name the system refuses
            return path
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    near = difflib.get_close_matches(Path(name).stem, names, n=1)
    if os.path.isdir(name):
        inside = Path(name) / "config.yaml"
        hint = f"did you mean {inside}?" if inside.is_file() else "name a file in it"
        raise ConfigError(f"{name} is a folder, not a config file; {hint}")
    hint = f"did you mean {near[0]}?" if near else f"the recipes are {', '.join(names) or 'none'}"
    raise ConfigError(f"there is no config file {str(name)!r}; {hint}")


def build_config(sections: Mapping[str, Any]) -> Config:
    """Make a Config from {section: {field: value}}; a value may be text, as a YAML file gives it.

    Raises: ConfigError for an unknown field or a value out of range.
    """
    sections, of_run = dict(sections), "run_format" in sections
    run_format = str(sections.pop("run_format", RUN_FORMAT))
    if run_format == "1":
        sections = upgraded(sections)
    elif run_format != str(RUN_FORMAT):
        raise ConfigError(f"this jaxlm reads run_format {RUN_FORMAT} and 1, not {run_format}")
    kinds, keys = section_kinds(), section_keys()
    built: dict[str, Any] = {}
    written = set()
    for name, values in sections.items():
        if name not in kinds:
            raise unknown_section(str(name))
        fields = section_fields(name, values)
        if kinds[name] is ModelConfig:
            fields = expand_preset(fields)
        built[name] = build_section(kinds[name], fields, keys)
        written |= {f"{name}.{field}" for field in fields}
    if of_run:
        # A run records all fields, this one too where its steps cut the default short.
        written.discard("optim.warmup_steps")
    return Config(**built, written=frozenset(written))


def upgraded(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of run_format 1: `objective` and the task's options in `finetune` become `task`."""
    sections = dict(sections)
    objective = dict(sections.pop("objective", None) or {})
    finetune = dict(sections.pop("finetune", None) or {})
    name = finetune.pop("task", None) or TASK_OF_FORMAT_1[objective.pop("name", None) or "clm"]
    task = {"name": name}
    for field, entry in TaskConfig.__dataclass_fields__.items():
        for source in (objective, finetune):
            value = source.pop(field, None) if field != "name" else None
            if value is not None and name in entry.metadata["tasks"]:
                task[field] = value
    return {**sections, "task": task, "finetune": finetune}


def to_mapping(config: Config) -> dict[str, Any]:
    """The config as nested mappings, which `build_config` reads back.

    All fields are included, except the options of other tasks.
    """
    sections = {n: dataclasses.asdict(getattr(config, n)) for n in section_kinds()}
    for name in options_of_tasks():
        if config.task.name not in TaskConfig.__dataclass_fields__[name].metadata["tasks"]:
            del sections["task"][name]
    return {"run_format": RUN_FORMAT, **sections}


def to_yaml(config: Config) -> str:
    """The config in the format of a run directory's `config.yaml`."""
    return yaml.safe_dump(to_mapping(config), sort_keys=False, allow_unicode=True)


def section_fields(name: str, values: object) -> dict[str, Any]:
    """The fields of a section; an empty section of a YAML file is null."""
    if not isinstance(values, Mapping | NoneType):
        raise ConfigError(f"{name} is a section and must hold fields, got {values!r}")
    return dict(values or {})


def unknown_section(name: str) -> ConfigError:
    kinds, keys = section_kinds(), section_keys()
    if any(key.endswith(f".{name}") for key in keys):
        hint = f"write {' or '.join(near_keys(name, keys))}"
    elif near := difflib.get_close_matches(name, kinds, n=1):
        hint = f"did you mean {near[0]}?"
    else:
        hint = f"the sections are {', '.join(kinds)}"
    return ConfigError(f"{name} is not a known section; {hint}")


class TextLoader(yaml.BaseLoader):
    """YAML whose scalars stay text, or null; the type of a field decides how it is read.

    So 3e-4 is a number, `yes` is not a boolean, and a run may be called 010 or 2024-01-01.
    Aliases are refused, as a few lines of them can expand to more than fits in memory.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="it holds an alias (*)", problem_mark=mark)
        return super().compose_node(parent, index)

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
    sections = parse_yaml(text, path)
    if not isinstance(sections, dict | None):
        raise ConfigError(f"{path} must hold sections such as model and train")
    return sections or {}


def parse_overrides(words: Sequence[str]) -> dict[str, dict[str, object]]:
    """`--a.b value` and `--a.b=value` words as {a: {b: value}}; the last value of a key wins.

    A value is text, or null, or a list in YAML's brackets.
    """
    sections: dict[str, dict[str, object]] = {}
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
            known = f"{section}.{field}" in section_keys()
            raise ConfigError(f"{key} needs a value") if known else misplaced_word(word)
        sections.setdefault(section, {})[field] = parse_value(key, value)
    return sections


def parse_value(key: str, text: str) -> object:
    if text == "null":
        return None
    return parse_yaml(text, key) if text.startswith("[") and text.endswith("]") else text


def misplaced_word(word: str) -> ConfigError:
    # A text editor may have replaced -- by a longer dash.
    name = word.partition("=")[0].lstrip("-–—").rpartition(".")[2]
    near = near_keys(name, section_keys())
    hint = (
        f"did you mean --{' or --'.join(near)}?"
        if near
        else "python train.py --help lists them all"
    )
    return ConfigError(f"expected --section.field value, got {word!r}; {hint}")


def describe_options(width: int = 100) -> str:
    """Every field with its meaning, choices and default, by section: the body of `--help`."""
    paragraphs = []
    for name, kind in section_kinds().items():
        lines = [f"{name}: {(kind.__doc__ or '').splitlines()[0]}"]
        types = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            owners = field.metadata["tasks"]
            meaning = f"{', '.join(owners)}: " * bool(owners) + field.metadata["meaning"]
            choices = describe_choices(types[field.name])
            lines += textwrap.wrap(
                f"{meaning}{choices} [{describe_default(field.default)}]",
                width,
                initial_indent=f"  --{name}.{field.name}".ljust(30) + " ",
                subsequent_indent=" " * 31,
                break_on_hyphens=False,
            )
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def describe_choices(base: object) -> str:
    kinds = (base, *typing.get_args(base))  # a Literal, or a union of one with None
    choices = [c for kind in kinds for c in typing.get_args(kind) if isinstance(c, str)]
    return f" ({' | '.join(choices)})" if len(choices) > 1 else ""


def describe_default(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return "[" + ", ".join(value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
