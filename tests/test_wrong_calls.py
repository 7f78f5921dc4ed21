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
    told = json.loads(done.stdout)
    assert len(told) >= 30
    wrong = {name: text for name, text in told.items() if name not in text or "\n" in text}
    assert wrong == {}
