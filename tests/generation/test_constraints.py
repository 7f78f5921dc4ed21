"""Text that matches a regular expression or a JSON schema, whatever the model would say."""

import json
import re

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from jaxlm.artifact import Loaded
from jaxlm.config import JaxlmError
from jaxlm.generation import explain, generate
from jaxlm.generation.constraints import Constraint, grammar_of
from jaxlm.tokenizer import END_OF_TEXT, SPECIAL_TOKENS, Tokenizer, train_tokenizer
from tests.fixtures.tiny import tiny_model

pytest.importorskip("llguidance")

TEXT = "".join(map(chr, range(32, 127))) + "今天气“”"
SETTINGS = {"max_new_tokens": 90, "temperature": 1.0, "seed": 4}


def make(kind: str, specials: list[str]) -> Loaded:
    tokenizer = train_tokenizer(kind, [TEXT] * 3, vocab_size=600, specials=specials)
    return random_model(tokenizer)


def random_model(tokenizer: Tokenizer) -> Loaded:
    # More tokens than the tokenizer has, as many models do.
    size = tokenizer.vocab_size + 5
    model, variables = tiny_model("learned", vocab_size=size, max_seq_len=100, num_layers=1)
    return Loaded(model, variables["params"], tokenizer, model.config)


@pytest.fixture(scope="module", params=["char", "bpe", "unigram"])
def loaded(request) -> Loaded:
    return make(request.param, [END_OF_TEXT])


@pytest.mark.parametrize("pattern", [r"[0-9]{3}-[0-9]{2}", "(今|天){2,5}气", r"[a-c]{1,9}(x|yy)"])
def test_a_text_matches_the_regular_expression(loaded, pattern):
    # Nothing in the patterns may repeat without an end, so that every text comes to its own.
    for text in generate(loaded, ["a", "天", "12"], regex=pattern, **SETTINGS):
        assert re.fullmatch(pattern, text)


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


@pytest.fixture(scope="module")
def wordpiece() -> Loaded:
    return make("wordpiece", list(SPECIAL_TOKENS))


@pytest.mark.parametrize(
    "pattern",
    [
        r" ?[0-9]{2}( - [0-9]){2}",  # digits and marks are words of their own
        "( ?今|天){2,5}气",
        r" ?(yes|no)\.",  # no space before a full stop
        "天 ?a?",  # nor between a Chinese character and a word
        "[“”天 ]{6}",
        "(今| t|a|“){9}",
    ],
)
def test_a_wordpiece_text_matches_with_the_spaces_that_it_is_shown_with(wordpiece, pattern):
    settings = SETTINGS | {"max_new_tokens": 30}
    for text in generate(wordpiece, ["the cat", "今", "“天”", ""], regex=pattern, **settings):
        assert re.fullmatch(pattern, text)


def test_json_is_refused_where_words_stand_apart(wordpiece):
    with pytest.raises(JaxlmError, match="a WordPiece vocabulary cannot write JSON"):
        generate(wordpiece, ["a"], json_schema="{}")


def test_what_no_token_can_spell_is_an_error(wordpiece):
    with pytest.raises(JaxlmError, match="no token of the vocabulary can go on"):
        generate(wordpiece, ["今"], regex=" a", **SETTINGS)


@pytest.mark.parametrize("specials", [[], [END_OF_TEXT]], ids=["endless", "with an end"])
@pytest.mark.parametrize("pattern", ["é+", "abé", "(a|bé)c{4}é"])
def test_a_text_that_gets_stuck_is_an_error_that_names_the_constraint(specials, pattern):
    loaded = make("char", specials)
    sentence = re.escape(f"can go on as the regular expression {pattern!r} asks")
    with pytest.raises(JaxlmError, match=sentence):
        generate(loaded, ["a"], regex=pattern, **SETTINGS)
    with pytest.raises(JaxlmError, match="can go on as the JSON schema asks"):
        generate(loaded, ["a"], json_schema={"enum": ["é"]}, **SETTINGS)


def test_bans_that_leave_nothing_of_the_constraint_are_an_error(loaded):
    every = list(range(loaded.config.vocab_size))
    for pattern, rules in (
        # What would be chosen without all rules matches by chance.
        ("(.|\n){200}", {"banned_tokens": every, "max_new_tokens": 1}),
        ("b{200}", {"no_repeat_ngram": 1}),
    ):
        for temperature in (0.0, 1.0):
            settings = SETTINGS | rules | {"temperature": temperature}
            with pytest.raises(JaxlmError, match="leave no token"):
                generate(loaded, ["a"], regex=pattern, **settings)


@pytest.mark.parametrize("specials", [[], [END_OF_TEXT]], ids=["endless", "with an end"])
def test_the_empty_expression_gives_the_empty_text(specials):
    loaded = make("char", specials)
    assert generate(loaded, ["a", "b"], regex="", **SETTINGS) == ["", ""]
    assert explain(loaded, ["a"], regex="", **SETTINGS) == [[]]


def test_chinese_is_constrained_in_a_vocabulary_of_bytes():
    english = train_tokenizer("unigram", ["the cat walks"] * 9, vocab_size=400)
    pattern = "(好|气|真|天){14}"
    for text in generate(
        random_model(english), ["天气真好我们写代码今", "the cat"], regex=pattern, **SETTINGS
    ):
        assert re.fullmatch(pattern, text)


def test_a_text_from_its_beginning_matches_without_the_space_that_is_not_shown():
    pieces = ["<unk>", "</s>", "\u2581", "\u2581yes", "\u2581no", "yes", "a"]
    backend = tokenizers.Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], 0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(["<unk>", "</s>"])
    for text in generate(random_model(Tokenizer(backend)), ["", "a"], regex="(yes| no){3}"):
        assert re.fullmatch("(yes| no){3}", text)


def test_tokens_of_the_same_bytes_are_allowed_alike():
    tokenizer = make("unigram", [END_OF_TEXT]).tokenizer
    grammar = grammar_of("a", None)
    assert grammar is not None
    constraint = Constraint(tokenizer, tokenizer.vocab_size, grammar, [])
    bits = np.unpackbits(constraint.allowed().view(np.uint8), bitorder="little")
    names = {tokenizer.backend.id_to_token(i) for i in np.flatnonzero(bits).tolist()}
    assert names == {"a", "<0x61>"}


def test_a_text_that_is_whole_ends_where_the_vocabulary_cannot_go_on():
    assert generate(make("char", []), ["a"], regex="yes(é|ü)*", **SETTINGS) == ["yes"]


def test_a_tokenizer_without_an_end_stops_where_nothing_may_follow():
    assert generate(make("char", []), ["a"], regex="(yes|no)!", **SETTINGS)[0] in ("yes!", "no!")


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ({"regex": "(a"}, r"the regular expression '\(a' cannot be read: unclosed group$"),
        ({"json_schema": "{"}, "the JSON schema cannot be read"),
        (
            {"json_schema": {"type": "nothing"}},
            "schema cannot be read: .*Invalid type: nothing$",
        ),
        ({"json_schema": "[" * 100_000}, "the JSON schema is nested too deeply"),
        ({"json_schema": "[1]"}, "schema must be an object"),
        ({"regex": "a", "json_schema": "{}"}, "not both"),
    ],
)
def test_a_constraint_that_cannot_be_read_is_refused(loaded, constraint, message):
    with pytest.raises(JaxlmError, match=message):
        generate(loaded, ["a"], **constraint)
