"""Wrong calls of the Python API, each told in one sentence that names what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_wrong_call_is_told_in_one_sentence():
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    words = [sys.executable, "-m", "tests.wrong_calls"]
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found["told"]) >= 70
    wrong = [row for row in found["told"] if row[1] not in row[2] or "\n" in row[2]]
    assert wrong == []
    assert found["kilobytes"] < 2e6
