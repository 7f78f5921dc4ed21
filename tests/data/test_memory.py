"""The memory that a text of one line takes, as genomes and minified files are."""

import random
import subprocess
import sys

import pytest

SMALL, LARGE = 5_000_000, 11_000_000  # both longer than the most that is encoded at once
PROGRAM = """
import sys
from pathlib import Path
from jaxlm.config import DataConfig
from jaxlm.data import prepare

folder, most = Path(sys.argv[1]), [0]
for name in ("small", "large"):
    source = str(folder / f"{name}.txt")
    config = DataConfig(source=source, tokenizer=sys.argv[2], vocab_size=300, seq_len=64)
    prepare(config, cache_dir=folder)
    status = Path("/proc/self/status").read_text()
    most.append(1024 * int(status.partition("VmHWM:")[2].split()[0]))
print(most[2] - most[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("tokenizer", ["char", "bpe"])
def test_a_text_without_line_ends_takes_a_small_multiple_of_its_size(tmp_path, tokenizer):
    letters = random.Random(0).choices("acgt", k=LARGE)
    (tmp_path / "small.txt").write_text("".join(letters[:SMALL]))
    (tmp_path / "large.txt").write_text("".join(letters))
    words = [sys.executable, "-c", PROGRAM, str(tmp_path), tokenizer]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 25 * (LARGE - SMALL)
