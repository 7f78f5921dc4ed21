"""Text that matches a regular expression or a JSON schema, whatever the model would say."""

import json
import re

import pytest

from jaxlm.artifact import Loaded
from jaxlm.config import JaxlmError
from jaxlm.generation import generate
from jaxlm.tokenizer import END_OF_TEXT, train_tokenizer
from tests.fixtures.tiny import tiny_model

pytest.importorskip("llguidance")

TEXT = "".join(map(chr, range(32, 127))) + "今天气"
SETTINGS = {"max_new_tokens": 90, "temperature": 1.0, "seed": 4}


def make(kind: str, specials: list[str]) -> Loaded:
    tokenizer = train_tokenizer(kind, [TEXT] * 3, vocab_size=300, specials=specials)
    # More tokens than the tokenizer has, as many models do.
    size = tokenizer.vocab_size + 5
    model, variables = tiny_model("learned", vocab_size=size, max_seq_len=100, num_layers=1)
    return Loaded(model, variables["params"], tokenizer, model.config)


@pytest.fixture(scope="module", params=["char", "bpe"])
def loaded(request) -> Loaded:
    return make(request.param, [END_OF_TEXT])


@pytest.mark.parametrize("pattern", [r"\d{3}-\d{2}", "(今|天){2,5}气", r"[a-c]+(x|yy)"])
def test_a_text_matches_the_regular_expression(loaded, pattern):
    bounded = SETTINGS | {"max_new_tokens": 60}
    texts = generate(loaded, ["a", "天", "12"], regex=pattern, **bounded)
    for text in texts:
        assert re.fullmatch(pattern, text) or len(text) >= 15  # not at its end yet
    assert re.fullmatch(pattern, texts[0])


def test_a_text_is_json_of_the_schema(loaded):
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "mood": {"enum": ["好", "bad"]}},
        "required": ["ok", "mood"],
        "additionalProperties": False,
    }
    for given in (schema, json.dumps(schema)):
        for text in generate(loaded, ["a", "天"], json_schema=given, **SETTINGS):
            value = json.loads(text)
            assert isinstance(value["ok"], bool)
            assert value["mood"] in ("好", "bad")


def test_a_tokenizer_without_an_end_stops_where_nothing_may_follow():
    assert generate(make("char", []), ["a"], regex="(yes|no)!", **SETTINGS)[0] in ("yes!", "no!")


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ({"regex": "(a"}, "the constraint cannot be read"),
        ({"json_schema": "{"}, "the JSON schema cannot be read"),
        ({"json_schema": {"type": "nothing"}}, "the constraint cannot be read"),
        ({"regex": "a", "json_schema": "{}"}, "not both"),
    ],
)
def test_a_constraint_that_cannot_be_read_is_refused(loaded, constraint, message):
    with pytest.raises(JaxlmError, match=message):
        generate(loaded, ["a"], **constraint)
