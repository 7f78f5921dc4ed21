"""Generation in int8 beside fp32: tokens/s, memory, and the change of a random model's outputs.

    python -m scripts.bench_int8 [--rounds 7] [--batch 1 8]

GPT-2 124M with random weights continues 32-token prompts by 64 greedy tokens. The speeds are taken
in one process, which alternates the two, and are medians; the memory is that of a process of its
own for each, at its end and at its peak, above one that only imports.
"""

import argparse
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxlm
from jaxlm.artifact import Loaded
from jaxlm.generation import compare_params, generate_tokens, quantized
from jaxlm.generation.quantize import num_bytes
from jaxlm.generation.text_batch import generating
from jaxlm.models import make_model, param_shapes
from jaxlm.runtime import return_freed_memory
from jaxlm.tokenizer import AbsentTokenizer

PROMPT, NEW = 32, 64
MEASURE = r"""
import re
import jax
jax.numpy.zeros(1).block_until_ready()
{statement}
status = open("/proc/self/status").read()
print(*(int(re.search(name + r":\s+(\d+)", status)[1]) / 1e6 for name in ("VmRSS", "VmHWM")))
"""


def random_model() -> Loaded:
    """GPT-2 124M that says anything."""
    config = jaxlm.preset("gpt2")
    generator = np.random.default_rng(0)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        noise = 0.02 * generator.standard_normal(leaf.shape, np.float32)
        return jnp.asarray(noise + (path[-1].key == "scale"))

    params = jax.tree_util.tree_map_with_path(draw, param_shapes(config))
    return Loaded(make_model(config), params, AbsentTokenizer("random weights"), config)


def run(loaded: Loaded, batch_size: int) -> None:
    vocab_size = loaded.config.vocab_size or 0
    ids = np.random.default_rng(1).integers(vocab_size, size=(batch_size, PROMPT))
    generate_tokens(generating(loaded), loaded.params, ids, max_new_tokens=NEW, temperature=0.0)


def run_alone(weights: str) -> Loaded:
    """Make a model, hold it in fp32 or int8, and generate from one row; the model still held."""
    loaded = random_model()
    if weights == "int8":
        loaded = quantized(loaded)
        return_freed_memory()
    run(loaded, 1)
    return loaded


def memory(statement: str) -> list[float]:
    """Gigabytes of a process that runs a statement: at its end, and at its peak."""
    command = [sys.executable, "-c", MEASURE.replace("{statement}", statement)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(gigabytes) for gigabytes in out.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8])
    arguments = parser.parse_args()
    bare = memory("import scripts.bench_int8")
    for name in ("fp32", "int8"):
        used = memory(f"from scripts.bench_int8 import run_alone; held = run_alone({name!r})")
        end, peak = (x - y for x, y in zip(used, bare, strict=True))
        print(f"{name}: {end:.2f} GB when it has generated, {peak:.2f} GB at its peak", flush=True)
    loaded = random_model()
    other = quantized(loaded)
    for name, held in (("fp32", loaded), ("int8", other)):
        print(f"{name}: {num_bytes(held.params) / 1e6:.1f} MB of weights")
    rows = np.random.default_rng(2).integers(loaded.config.vocab_size or 0, size=(1, 512)).tolist()
    print(compare_params(generating(loaded), loaded.params, other.params, rows), flush=True)
    for size in arguments.batch:
        seconds: list[tuple[float, float]] = []
        for _ in range(arguments.rounds + 1):  # the first compiles
            began = time.perf_counter()
            run(loaded, size)
            between = time.perf_counter()
            run(other, size)
            seconds.append((between - began, time.perf_counter() - between))
        slow, fast = (statistics.median(column) for column in zip(*seconds[1:], strict=True))
        times = statistics.median(a / b for a, b in seconds[1:])
        speeds = f"fp32 {size * NEW / slow:.1f} tokens/s, int8 {size * NEW / fast:.1f}"
        print(f"batch {size}: {speeds}, {times:.2f} times", flush=True)


if __name__ == "__main__":
    main()
