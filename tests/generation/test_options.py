"""Options are checked before anything runs, and come from one declaration."""

import inspect

import pytest

from jaxlm.config import JaxlmError
from jaxlm.generation import GenerationOptions, generate, generate_tokens
from jaxlm.generation.options import OPTIONS, options_of_rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"temperature": -0.5}, "temperature must be finite and at least 0, got -0.5"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"temperature": float("inf")}, "temperature must be"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, "top_p must be"),
        ({"min_p": -0.1}, r"min_p must be in \[0, 1\]"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be positive"),
        ({"presence_penalty": float("nan")}, "presence_penalty must be finite"),
        ({"no_repeat_ngram": 0}, "no_repeat_ngram must be at least 1"),
        ({"min_new_tokens": -1}, "min_new_tokens must be at least 0"),
        ({"max_new_tokens": 2**31}, r"max_new_tokens must be below 2\*\*31"),
        ({"frequency_penalty": -1e39}, "frequency_penalty must be below"),
        ({"max_new_tokens": 2.5}, "max_new_tokens must be a whole number, got 2.5"),
        ({"temperature": "0.5"}, "temperature must be a number, got '0.5'"),
        ({"seed": None}, "seed must be a whole number, got None"),
        ({"banned_tokens": ["a"]}, "banned_tokens must be a list of token ids"),
        ({"bias": {3: float("nan")}}, "bias must be"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(JaxlmError, match=message):
        GenerationOptions(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": [0.0]}, "temperature has 1 values for 2 rows"),
        ({"top_k": [3, 0]}, "top_k must be at least 1"),
        ({"temprature": 0.5}, "no option 'temprature'"),
        ({"stream": True}, "no option 'stream'"),
        ({"temperature": [[0.5, 1.0]]}, r"temperature must be a number, or one a row; got a shape"),
        ({"seed": [[0], [1, 2]]}, "seed must be a whole number"),
        (
            {"stop_tokens": 5},
            "stop_tokens must be a list of token ids, or one of them a row; got 5",
        ),
        ({"stop_tokens": "ab"}, "stop_tokens must be a list of token ids"),
        ({"banned_tokens": [[1], [2], [3]]}, "banned_tokens has 3 values for 2 rows"),
        ({"bias": [3, 4]}, "bias must be a number for each token of a mapping, or one"),
    ],
)
def test_options_of_rows_are_checked(options, message):
    with pytest.raises(JaxlmError, match=message):
        options_of_rows(2, **options)


def test_rows_draw_as_those_of_a_batch_from_the_first_on():
    assert [row.row for row in options_of_rows(3, row=4)] == [4, 5, 6]
    assert [row.row for row in options_of_rows(3, seed=[7, 8, 9])] == [0, 0, 0]
    assert options_of_rows(1, seed=2**70)[0].seed == 2**70


@pytest.mark.parametrize("function", [generate, generate_tokens])
def test_public_signatures_have_the_declared_defaults(function):
    parameters = inspect.signature(function).parameters
    named = {name: OPTIONS[name].default for name in parameters if name in OPTIONS}
    assert len(named) == 7
    assert named == {name: parameters[name].default for name in named}


def test_every_option_says_what_it_does():
    assert all(option.help for option in OPTIONS.values())
    assert GenerationOptions() == options_of_rows(1)[0]
