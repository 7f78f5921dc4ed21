"""Wrong calls of jaxlm.inspection, each told in one sentence that names what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inspection.wrong_calls import ROWS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def told():
    """What each call of the table raised, by the call."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    words = [sys.executable, "-m", "tests.inspection.wrong_calls"]
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(zip([call for call, _ in ROWS], json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(("call", "words"), ROWS, ids=[call for call, _ in ROWS])
def test_a_wrong_call_is_told_in_one_sentence(told, call, words):
    assert words in told[call]
    assert "\n" not in told[call]
