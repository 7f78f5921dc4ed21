"""Time of a recipe's compiled training step on one accelerator, and its model FLOPs utilisation.

    python scripts/bench_gpu.py --config gpt2_124m --train.batch_size 32 [--trace DIR] [--json]

The step is that of `train.py`, of one micro-batch, in bfloat16, on a batch of random tokens that
lies on the device; `--section.field value` words change the recipe. MFU counts PaLM's model FLOPs
against the dense bf16 peak of the data sheet. `--trace DIR` also writes a profile and tells the
kernels that take the most time.
"""

import argparse
import gzip
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm.config import load_config
from jaxlm.models import make_model
from jaxlm.parallel import chip_of
from jaxlm.runtime import set_up
from jaxlm.training.plan import count_step, resolve_or_stand_in
from jaxlm.training.programs import compile_and_start

STEPS = 10  # in a round


def start(config_name: str, words: list[str]) -> tuple[Any, Any, dict[str, Any], float]:
    """The state, the compiled step, a batch on the device, and the model FLOPs of a step."""
    usual = ["--model.compute_dtype", "bfloat16", "--train.accumulate_steps", "1"]
    resolved, _ = resolve_or_stand_in(load_config(config_name, [*usual, *words]))
    config, task = resolved.config, resolved.task
    batch = dict(task.train_batch(0))
    draws = np.random.default_rng(0)
    for name in ("ids", "targets"):
        batch[name] = draws.integers(0, config.model.vocab_size, batch[name].shape, np.int32)
    flops = count_step(config, task, batch, resolved).flops
    model = make_model(config.model)
    given = resolved.given
    state, update = compile_and_start(config, model, task.objective, batch, None, given)
    return state, update, jax.device_put(batch), flops


def kernel_times(folder: Path, most: int = 30) -> list[tuple[str, float]]:
    """Milliseconds of each kernel in the newest trace under a folder, the longest first."""
    path = max(folder.rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    devices = {pid for pid, name in names.items() if "GPU" in name or "TPU" in name}
    total: defaultdict[str, float] = defaultdict(float)
    for event in events:
        if event.get("ph") == "X" and event["pid"] in devices:
            total[event["name"]] += event["dur"] / 1e3
    return sorted(total.items(), key=lambda pair: -pair[1])[:most]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="gpt2_124m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments, words = parser.parse_known_args()
    set_up()
    began = time.perf_counter()
    state, update, batch, flops = start(arguments.config, words)
    first = time.perf_counter() - began

    def turn(state: Any) -> Any:
        for _ in range(STEPS):
            state, metrics = update(state, batch)
        return jax.block_until_ready((state, metrics))[0]

    state, seconds = turn(state), []
    for _ in range(arguments.rounds):
        began = time.perf_counter()
        state = turn(state)
        seconds.append((time.perf_counter() - began) / STEPS)
    device, step = jax.devices()[0], statistics.median(seconds)
    chip = chip_of(device.device_kind)
    result = {
        "device": device.device_kind,
        "words": " ".join(words),
        "ms": 1e3 * step,
        "tokens_per_second": batch["ids"].size / step,
        "mfu": None if chip is None else flops / step / chip.peak_flops,
        "peak_gb": (device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 1e9,
        "compile_seconds": first,
    }
    if arguments.trace is not None:
        with jax.profiler.trace(str(arguments.trace)):
            state = turn(state)
        for name, spent in kernel_times(arguments.trace):
            print(f"{spent / STEPS:9.3f} ms a step  {name}")
    if arguments.json:
        print(json.dumps(result), flush=True)
        return
    told = "an unknown share" if result["mfu"] is None else f"{result['mfu']:.1%}"
    print(
        f"{result['device']}: {result['ms']:.2f} ms a step, {result['tokens_per_second']:,.0f} "
        f"tokens/s, {told} of the peak; {result['peak_gb']:.1f} GB at most, "
        f"started in {first:.0f} s"
    )


if __name__ == "__main__":
    main()
