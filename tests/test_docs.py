"""The README and docs/: what they link to, call or name exists."""

import ast
import re
from pathlib import Path

import pytest

from jaxlm.cli import TRAIN, VERBS
from jaxlm.config.sections import section_keys, section_kinds

ROOT = Path(__file__).parents[1]
READMES = (ROOT / "README.md", ROOT / "README.zh.md")
PAGES = (*READMES, *sorted((ROOT / "docs").glob("*.md")))
RECIPES = {path.stem: path for path in sorted((ROOT / "configs").glob("*.yaml"))}

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(`+)(.+?)\1")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
FLAG = re.compile(r"--([a-z]+\.\w+)")
FIELD = re.compile(rf"\A(?:{'|'.join(section_kinds())})\.\w+(?=[ :]|\Z)")
VERB = re.compile(r"\bjaxlm ([a-z]+)")
RECIPE = re.compile(r"\b(\w+)\.yaml\b|--config (\w+)(?![\w./])")
FILE_ENDINGS = (".py", ".yaml", ".safetensors")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page in these languages, or all."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for language, code in found if not languages or language in languages]


def spans(page: Path) -> list[str]:
    """The inline code of a page."""
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [code for _, code in SPAN.findall(prose)]


def links(page: Path) -> list[str]:
    """The relative links of a page."""
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [link for link in LINK.findall(prose) if "://" not in link]


def fields(code: str) -> set[str]:
    """The `--section.field` options in a piece of code, and the field that it begins with."""
    named = {*FLAG.findall(code), *FIELD.findall(code)}
    return {name for name in named if not name.endswith(FILE_ENDINGS)}


@every_page
def test_relative_links_point_at_files_that_exist(page):
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


@every_page
def test_fields_of_a_config_exist(page):
    named = set().union(*map(fields, spans(page) + blocks(page)))
    assert named - set(section_keys()) == set()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_options_in_the_header_of_a_recipe_exist(recipe):
    assert set(FLAG.findall(recipe.read_text(encoding="utf-8"))) <= set(section_keys())


@every_page
def test_verbs_exist(page):
    code = spans(page) + blocks(page, "sh", "")
    named = {verb for piece in code for verb in VERB.findall(piece)}
    assert named - {TRAIN, *VERBS} == set()


@every_page
def test_recipes_exist(page):
    code = spans(page) + blocks(page)
    named = {name for piece in code for pair in RECIPE.findall(piece) for name in pair}
    assert named - {"", "config", "mine", *RECIPES} == set()  # mine: a file of the reader


@every_page
def test_python_blocks_compile(page):
    for code in blocks(page, "python"):
        ast.parse(code)


def test_the_readme_is_short_and_names_every_page():
    assert len(READMES[0].read_text(encoding="utf-8").splitlines()) <= 150
    for readme in READMES:
        assert {f"docs/{page.name}" for page in PAGES if page not in READMES} <= set(links(readme))


def test_every_recipe_is_in_the_table():
    table = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert [name for name in RECIPES if f"`{name}.yaml`" not in table] == []
