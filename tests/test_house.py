"""The rules of the house: what stands where, how large a file is, and one word for one thing."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

HOUSE = Path(__file__).parents[1]
PACKAGE = HOUSE / "jaxlm"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_FILES, MOST_LINES, FEWEST_LINES = 180, 300, 30

TASKS = {
    "causal_lm",
    "masked_lm",
    "seq2seq",
    "span_corruption",
    "sequence_classification",
    "token_classification",
    "question_answering",
    "chat",
}
FAMILIES = re.compile(r"(gpt2|llama|mistral|qwen2|qwen3|bert|roberta|marian|bart|t5)(_[a-z0-9]+)?")
PARAMETER_PATH = re.compile(
    r"backbone/|\blayers_|(embed|attention|feed_forward|classifier|pooler|transform)/"
    r"|/(kernel|bias|scale|tokens|positions|types|query|key|value)\b|\blora_(a|b|scale)\b"
)
# Files of fewer lines than others; each __init__.py only names what is public.
SMALL = {
    "tokenizer/characters.py": "classes of characters, which tokenizers, data and terminals share"
}
# Names that two packages define.
SAME_NAME = {
    "__getattr__": "Python's hook for names imported on first use",
    "__dir__": "the same",
    "run": "what a verb of the command does; a forward pass that is watched",
}


def name_of(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def package_of(file: Path) -> str:
    """The package of a file; a module beside the packages counts as one."""
    return file.relative_to(PACKAGE).parts[0]


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def strings(file: Path) -> list[tuple[str, str]]:
    """Each string of the code, not of docstrings, with where it stands."""
    nodes = list(ast.walk(parsed(file)))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return [
        (node.value, f"{name_of(file)}:{node.lineno}")
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if id(node) not in docstrings
    ]


def top_level_names(file: Path) -> Iterator[str]:
    """The classes, functions and type aliases of a module."""
    for node in parsed(file).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.TypeAlias):
            yield node.name.id
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            yield from (name for name in names if re.match("[A-Z][a-z]", name))


def found(pattern: re.Pattern[str], *, outside: tuple[str, ...]) -> list[str]:
    """Where strings match a pattern, but for the packages and files in `outside`."""
    files = [file for file in FILES if not name_of(file).startswith(outside)]
    return [
        f"{where} {text!r}"
        for file in files
        for text, where in strings(file)
        if pattern.search(text)
    ]


def test_tasks_are_named_in_tasks_and_config_only():
    # Heads of models have the same names, there and in the tables of Hugging Face's names.
    names = re.compile(rf"\A({'|'.join(TASKS - {'chat'})})\Z")
    assert found(names, outside=("tasks/", "config/", "models/", "hub/")) == []
    # The verb is called as the task is, and so is the module of dialogues.
    chat, named = re.compile(r"\Achat\Z"), ("cli/__init__.py", "generation/__init__.py")
    assert found(chat, outside=("tasks/", "config/", *named)) == []


def test_parameter_paths_are_spelled_where_parameters_are_defined_only():
    # The default of finetune.lora_targets is a pattern such as users write.
    outside = ("nn/", "models/", "hub/", "config/learning.py")
    assert found(PARAMETER_PATH, outside=outside) == []


def test_families_are_named_in_presets_and_hub_only():
    names = re.compile(rf"\A{FAMILIES.pattern}\Z")
    presets = tuple(name_of(file) for file in FILES if file.name == "presets.py")
    assert found(names, outside=("hub/", *presets)) == []


def test_there_are_not_too_many_files():
    assert len(FILES) <= MOST_FILES


def test_no_file_is_long_and_small_ones_have_a_reason():
    lines = {name_of(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
    small = {
        name
        for name, count in lines.items()
        if count < FEWEST_LINES and not name.endswith("__init__.py")
    }
    assert small == SMALL.keys()


def test_no_file_of_tests_or_scripts_is_long():
    files = [file for folder in ("tests", "scripts") for file in (HOUSE / folder).rglob("*.py")]
    assert len(files) > 100
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {str(file): count for file, count in lines.items() if count > MOST_LINES} == {}


def test_a_name_has_one_meaning():
    homes: dict[str, set[str]] = defaultdict(set)
    for file in FILES:
        for name in top_level_names(file):
            homes[name].add(package_of(file))
    shared = {name: sorted(packages) for name, packages in homes.items() if len(packages) > 1}
    assert shared.keys() == SAME_NAME.keys(), shared
