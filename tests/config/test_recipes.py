"""The recipes in configs/: each is a valid config, and its header gives the command."""

from pathlib import Path

import pytest

from jaxlm.config import load_config

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_its_header_gives_the_command(path):
    config = load_config(path.stem)
    assert config.run.name == path.stem
    header = "".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert f"python train.py --config {path.name}" in header
