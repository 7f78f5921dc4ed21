"""Real config.json files: each means to us what it means to transformers, or is refused by name."""

import json
from functools import cache
from pathlib import Path

import pytest

from jaxlm.config import JaxlmError
from jaxlm.hub import config_from_reference, config_to_reference
from jaxlm.hub.configs import family_told_by

# Found in public repositories, or where it says so written down from memory; those of other
# families are cut to the attributes that tell it. `tensors` are names of the weights beside them,
# where the config does not tell the family.
PUBLISHED = json.loads((Path(__file__).parents[1] / "fixtures" / "configs.json").read_text("utf-8"))
READ = [entry for entry in PUBLISHED if "expected" in entry]


def by_source(entries):
    return pytest.mark.parametrize("entry", entries, ids=[entry["source"] for entry in entries])


def ours(entry):
    shapes = dict.fromkeys(entry.get("tensors", ()), (10**6,))
    return config_from_reference(entry["config"], entry["expected"].get("head"), shapes)


def test_there_are_enough_of_every_family():
    families = [entry["expected"]["family"] for entry in READ]
    assert len(PUBLISHED) >= 80
    assert {name for name in families if families.count(name) >= 2} >= {
        *("gpt2", "llama", "mistral", "qwen2", "bert", "roberta"),
        *("xlm-roberta", "camembert", "distilbert"),
    }


@by_source(READ)
def test_a_published_config_means_what_it_means_to_transformers(entry):
    expected, config = dict(entry["expected"]), ours(entry)
    family = family_told_by(entry["config"], entry.get("tensors", ()))
    assert family.name == expected.pop("family")
    found = {name: getattr(config, name) for name in expected}
    found |= {"labels": list(config.labels)} if "labels" in expected else {}
    assert found == expected


@by_source(READ)
def test_what_is_written_again_means_the_same(entry):
    config = ours(entry)
    family = entry["expected"]["family"]
    again = config_to_reference(config, family)
    assert again["model_type"] == family
    assert config_from_reference(again) == config


@by_source([entry for entry in PUBLISHED if "refused" in entry])
def test_what_we_do_not_compute_is_refused_by_name(entry):
    shapes = dict.fromkeys(entry.get("tensors", ()), (10**6,))
    with pytest.raises(JaxlmError, match=entry["refused"]):
        config_from_reference(entry["config"], shapes=shapes)


@cache
def reference_facts():
    pytest.importorskip("transformers")
    from scripts.reference_models import config_facts

    return config_facts


@pytest.mark.parity
@by_source(READ)
def test_the_facts_are_those_of_transformers(entry):
    expected = dict(entry["expected"])
    family = expected.pop("family")
    expected.pop("head", None)
    assert reference_facts()(entry["config"], family) == expected
