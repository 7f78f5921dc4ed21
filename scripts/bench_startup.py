"""Seconds from the command line to the first training step, cold and with a warm cache.

    python scripts/bench_startup.py [--config gpt_tiny] [--rounds 5]

Each round starts `train.py` twice with one new, empty cache ($JAXLM_CACHE) and a new run
directory each time: first nothing is compiled or tokenised yet, then both are. Also prints the
time of `import jaxlm; jaxlm.CausalLM` beside `import jax, flax`, alternated.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAIN = Path(__file__).resolve().parent.parent / "train.py"


def first_step(config: str, cache: Path, run: Path) -> float:
    """Seconds until the row of step 1 is in metrics.jsonl."""
    command = [sys.executable, str(TRAIN), "--config", config, "--run.dir", str(run)]
    command += ["--train.log_every", "1"]
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"JAXLM_CACHE": str(cache)},
    )
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or not metrics.stat().st_size:
        if process.poll() is not None:
            sys.exit(f"train.py ended with status {process.returncode} before its first step")
        time.sleep(0.005)
    seconds = time.perf_counter() - began
    process.kill()
    process.wait()
    return seconds


def import_seconds(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="gpt_tiny")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cold, warm, ratios = [], [], []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder) / "cache"
            cold.append(first_step(arguments.config, cache, Path(folder) / "cold"))
            warm.append(first_step(arguments.config, cache, Path(folder) / "warm"))
        ratios.append(
            import_seconds("import jaxlm; jaxlm.CausalLM") / import_seconds("import jax, flax")
        )
    print(f"first step: cold {statistics.median(cold):.1f} s, warm {statistics.median(warm):.1f} s")
    print(f"import jaxlm with a model / import jax, flax: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
