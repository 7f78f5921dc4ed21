"""Generation beside transformers': recorded for tiny models, and live with the parity marker."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxlm.generation import Lookup, beam_search, generate_tokens
from jaxlm.hub import config_from_reference, import_tensors
from jaxlm.hub.configs import FAMILIES
from jaxlm.models import make_model
from tests.generation.reference import greedy, stacked

NAMES = ("gpt2", "llama", "qwen2")
LENGTH_PENALTIES = (1.0, 0.5, 1.8)
FOLDER = Path(__file__).parents[1] / "fixtures"


class Recorded:
    """What the reference generated, and a model of ours with its weights."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        theirs = json.loads(str(arrays["config"]))
        config = config_from_reference(theirs)
        weights = {
            name.removeprefix("weights/"): np.asarray(x, np.float32)
            for name, x in arrays.items()
            if name.startswith("weights/")
        }
        self.model = make_model(config)
        self.params = import_tensors(weights, config, FAMILIES[theirs["model_type"]])
        self.arrays, self.eos = arrays, int(arrays["eos"])
        self.prompts = [arrays[f"prompt/{i}"].tolist() for i in range(3)]

    def each(self, name: str) -> list[list[int]]:
        return [self.arrays[f"{name}/{i}"].tolist() for i in range(3)]


def recorded(name: str) -> Recorded:
    with np.load(FOLDER / f"generation_{name}.npz") as arrays:
        return Recorded(dict(arrays))


def live(name: str) -> Recorded:
    from scripts.make_generation_fixtures import record

    return Recorded(record(name))


SOURCES = [pytest.param((recorded, name), id=name) for name in NAMES]
SOURCES += [
    pytest.param((live, name), id=f"{name}-live", marks=pytest.mark.parity) for name in NAMES
]


@pytest.fixture(scope="module", params=SOURCES)
def theirs(request) -> Recorded:
    source, name = request.param
    return source(name)


@pytest.mark.parametrize("speculation", [None, Lookup()], ids=["plain", "lookup"])
def test_greedy_tokens_are_the_references_over_200_tokens(theirs, speculation):
    out = greedy(theirs.model, theirs.params, theirs.prompts, 200, speculation=speculation)
    assert out == theirs.each("greedy")


def test_penalties_ngrams_and_fewest_tokens_are_the_references(theirs):
    out = generate_tokens(
        theirs.model,
        theirs.params,
        **stacked(theirs.prompts),
        max_new_tokens=60,
        temperature=0.0,
        stop_tokens=[theirs.eos],
        pad_id=-1,
        repetition_penalty=1.3,
        no_repeat_ngram=3,
        min_new_tokens=9,
    )
    assert [[t for t in row if t >= 0] for row in out.tolist()] == theirs.each("ruled")


@pytest.mark.parametrize("setting", [0, 1, 2])
def test_beams_and_scores_are_the_references(theirs, setting):
    found = beam_search(
        theirs.model,
        theirs.params,
        theirs.prompts,
        max_new_tokens=24,
        num_beams=4,
        num_best=4,
        length_penalty=LENGTH_PENALTIES[setting],
        stop_tokens=[theirs.eos],
    )
    for i in range(3):
        sequences = theirs.arrays[f"beams/{i}/{setting}"]
        for tokens, count, expected in zip(
            found.tokens[i], found.counts[i], sequences, strict=True
        ):
            # Behind a stop token the reference fills with it.
            assert tokens[:count].tolist() == expected[:count].tolist()
            assert set(expected[count:].tolist()) <= {theirs.eos}
            assert count == len(expected) or tokens[count - 1] == theirs.eos
        np.testing.assert_allclose(
            found.scores[i], theirs.arrays[f"scores/{i}/{setting}"], atol=1e-4
        )
