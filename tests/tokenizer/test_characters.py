"""Which characters are ideographs, are written without spaces, or are wide."""

import re

import pytest

from jaxlm.tokenizer.characters import IDEOGRAPHS, UNSPACED, WIDE

ALL = {"ideographs": IDEOGRAPHS, "unspaced": UNSPACED, "wide": WIDE}


@pytest.mark.parametrize(
    ("characters", "kinds"),
    [
        ("㐀一天鿿豈𠀀𰻞", {"ideographs", "unspaced", "wide"}),
        ("、あア！ａ", {"unspaced", "wide"}),
        ("“…", {"unspaced"}),
        ("한︵", {"wide"}),
        ("aé.1 ", set()),
    ],
)
def test_each_character_is_of_its_kinds(characters, kinds):
    for character in characters:
        found = {name for name, inside in ALL.items() if re.fullmatch(f"[{inside}]", character)}
        assert found == kinds, character
