"""Time and memory of loading and importing a model of GPT-2's size from a Hugging Face directory.

    python scripts/bench_exchange.py [--rounds 3]

Writes a directory of random weights (124 M parameters, fp32), then runs each command in a process
of its own and prints the median of its seconds and of its peak resident memory above that of a
process that only imports jax.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import jax

import jaxlm
from jaxlm.artifact import Loaded
from jaxlm.models import make_model, param_shapes
from jaxlm.ops.random import normal
from jaxlm.tokenizer import AbsentTokenizer

MEASURE = r"""
import re, time
import jax
jax.numpy.zeros(1).block_until_ready()
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
# Linux's own mark: that of getrusage is handed down by the parent.
print(seconds, int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1e6)
"""


def write_random(folder: Path) -> None:
    config = jaxlm.preset("gpt2")
    params = jax.tree.map(lambda s: 0.02 * normal(jax.random.key(0), s.shape), param_shapes(config))
    model = make_model(config)
    jaxlm.export(Loaded(model, params, AbsentTokenizer("random weights"), config), folder)


def measure(statement: str) -> tuple[float, float]:
    """Seconds of a statement, and gigabytes at the peak of its process."""
    command = [sys.executable, "-c", MEASURE.replace("{statement}", statement)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, gigabytes = out.splitlines()[-1].split()
    return float(seconds), float(gigabytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "theirs"
        write_random(source)
        load = f"import jaxlm; jaxlm.load({str(source)!r})"
        verb = f"from jaxlm.cli import main; main(['import', {str(source)!r}, {{target!r}}])"
        results: dict[str, list[tuple[float, float]]] = {"load": [], "import": []}
        bare = []
        for i in range(rounds):
            bare.append(measure("pass")[1])
            results["load"].append(measure(load))
            target = str(Path(folder) / f"run{i}")
            results["import"].append(measure(verb.format(target=target)))
        for name, found in results.items():
            seconds = statistics.median(s for s, _ in found)
            above = statistics.median(g for _, g in found) - statistics.median(bare)
            print(f"{name}: {seconds:.2f} s, {above:.2f} GB above a bare import of jax")


if __name__ == "__main__":
    main()
