"""What looking inside costs: all attention of a GPT-2 124M, and the report of a model of 12 blocks.

python -m scripts.bench_inspection

Weights are random; times are medians of runs in turn, so that the machine's load falls on both.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.config import preset
from jaxlm.inspection import forward, write_report
from jaxlm.models import make_model
from jaxlm.tokenizer import train_tokenizer

TOKENS, REPORTED = 512, 64
TEXT = "To be, or not to be, that is the question: whether 'tis nobler i"


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def attention_of_all_blocks(rounds: int) -> None:
    """Time a plain forward pass and one that returns the attention of every head."""
    model: Any = make_model(preset("gpt2"))
    ids = np.random.default_rng(0).integers(0, 50257, (1, TOKENS))
    params = jax.jit(model.init)(jax.random.key(0), ids)["params"]
    plain = jax.jit(lambda params, ids: model.apply({"params": params}, ids))
    seen = jax.jit(lambda params, ids: forward(model, params, ids, "layers_*/attention/weights"))
    calls = (lambda: plain(params, ids), lambda: seen(params, ids))
    for call in calls:
        call()
    times = np.array([[seconds(call) for call in calls] for _ in range(rounds)])
    ratio = np.median(times[:, 1] / times[:, 0])
    print(f"GPT-2 124M, {TOKENS} tokens: plain {np.median(times[:, 0]):.2f} s", end=", ")
    print(f"with all attention {np.median(times[:, 1]):.2f} s, {ratio:.2f} times")


def report_of_12_blocks() -> None:
    """The size of the page of a model too large to travel in it."""
    tokenizer = train_tokenizer("char", [TEXT])
    config = preset("gpt2", vocab_size=tokenizer.vocab_size, max_seq_len=REPORTED)
    model: Any = make_model(config)
    params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 2), int))["params"]
    loaded = Loaded(model, params, tokenizer, model.config)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        write_report(loaded, TEXT[:REPORTED], page)
        size = page.stat().st_size / 1e6
    print(f"report of 12 blocks and {len(TEXT[:REPORTED])} tokens: {size:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    attention_of_all_blocks(parser.parse_args().rounds)
    report_of_12_blocks()


if __name__ == "__main__":
    main()
