"""Wrong calls of the library, each told in one sentence that names what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("table", "fewest"), [("tests.wrong_calls", 180), ("tests.inspection.wrong_calls", 300)]
)
def test_every_wrong_call_is_told_in_one_sentence(table, fewest):
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    words = [sys.executable, "-m", table]
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found["told"]) >= fewest
    wrong = [row for row in found["told"] if row[1] not in row[2] or "\n" in row[2]]
    assert wrong == []
    assert found["kilobytes"] < 2e6
