"""The body of `python train.py --help`."""

import dataclasses
import re

from jaxlm.config import describe_options
from jaxlm.config.sections import section_kinds


def test_every_field_is_shown_once_with_its_meaning_and_default():
    text = " ".join(describe_options().split())
    for section, kind in section_kinds().items():
        for field in dataclasses.fields(kind):
            found = re.findall(rf"--{section}\.{field.name} [^\[]{{4,}}", text)
            assert len(found) == 1, f"{section}.{field.name}"


def test_choices_and_defaults_are_written_as_a_config_writes_them():
    lines = [" ".join(line.split()) for line in describe_options().splitlines()]
    assert "--model.norm kind of normalisation (layernorm | rmsnorm) [layernorm]" in lines
    assert "--model.gated multiply the activation by a second projection (GLU) [false]" in lines
    assert "--optim.clip_norm global gradient norm to clip to; null: no clipping [1]" in lines
    assert "(float32 | bfloat16) [null]" in " ".join(lines)


def test_the_page_is_at_most_100_columns_wide():
    assert max(len(line) for line in describe_options().splitlines()) <= 100
