"""Settings are checked before anything runs."""

import pytest

from jaxlm.config import JaxlmError
from jaxlm.generation import Settings
from jaxlm.generation.settings import settings_of_rows


@pytest.mark.parametrize(
    ("settings", "message"),
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
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(JaxlmError, match=message):
        Settings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": [0.0]}, "temperature has 1 values for 2 rows"),
        ({"top_k": [3, 0]}, "top_k must be at least 1"),
        ({"temprature": 0.5}, "no setting 'temprature'"),
    ],
)
def test_settings_of_rows_are_checked(settings, message):
    with pytest.raises(JaxlmError, match=message):
        settings_of_rows(2, **settings)
