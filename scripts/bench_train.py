"""Training tokens/s of jaxlm beside the same GPT-2 in PyTorch, alternated in one run.

    pip install -e ".[parity]" && python scripts/bench_train.py [--rounds 12] [--json]

Both train the same shape on the same batch with AdamW and clipping, in fp32, without dropout:
transformers' GPT2LMHeadModel eagerly, jaxlm as `train.py` does. Each round times a few steps of
each, so that a change in the machine's speed meets both; the ratio is the median of the rounds'.
The first step of a turn is not timed: the other library's threads still spin while it begins.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping

import jax
import torch
import transformers

from jaxlm.config import ModelConfig, OptimConfig
from jaxlm.models import CausalLM
from jaxlm.runtime import keep_freed_memory
from jaxlm.tasks.causal_lm import causal_lm
from jaxlm.training.optimizers import make_optimizer
from jaxlm.training.state import init_state, train_step

SHAPES = {
    "tiny": {"num_layers": 4, "num_heads": 4, "d_model": 128, "T": 64, "B": 12, "V": 65},
    "small": {"num_layers": 6, "num_heads": 6, "d_model": 384, "T": 256, "B": 4, "V": 4096},
}
TURN = 4  # timed steps of one library before the other has its turn
LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 1e-3, 0.1, 1.0


def jaxlm_step(shape: dict[str, int], ids: torch.Tensor) -> Callable[[], float]:
    config = ModelConfig(
        vocab_size=shape["V"],
        max_seq_len=shape["T"],
        d_model=shape["d_model"],
        num_layers=shape["num_layers"],
        num_heads=shape["num_heads"],
    )
    optim = OptimConfig(
        learning_rate=LEARNING_RATE,
        schedule="constant",
        weight_decay=WEIGHT_DECAY,
        clip_norm=CLIP_NORM,
    )
    optimizer = make_optimizer(optim, 1000)
    init = jax.jit(lambda key: init_state(CausalLM(config), optimizer, causal_lm, key))
    states = [init(jax.random.key(0))]
    tokens = ids.numpy().astype("int32")
    batch = {"ids": tokens[:, :-1], "targets": tokens[:, 1:]}
    update = jax.jit(train_step, donate_argnums=0)

    def step() -> float:
        states[0], metrics = update(states[0], batch)
        return float(metrics["loss"])

    return step


def torch_step(shape: dict[str, int], ids: torch.Tensor) -> Callable[[], float]:
    config = transformers.GPT2Config(
        vocab_size=shape["V"],
        n_positions=shape["T"],
        n_embd=shape["d_model"],
        n_layer=shape["num_layers"],
        n_head=shape["num_heads"],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = transformers.GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY
    )
    inputs, targets = ids[:, :-1], ids[:, 1:].reshape(-1)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        logits = model(inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, shape["V"]), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        return loss.item()

    return step


def alternate(steps: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds a step of each, round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()  # compiles
    for _ in range(rounds):
        for name, step in steps.items():
            step()
            began = time.perf_counter()
            for _ in range(TURN):
                step()
            seconds[name].append((time.perf_counter() - began) / TURN)
    return seconds


def compare(shape: dict[str, int], rounds: int) -> dict[str, float]:
    """Median tokens/s of both, and the median ratio of a round."""
    torch.manual_seed(0)
    ids = torch.randint(0, shape["V"], (shape["B"], shape["T"] + 1))
    seconds = alternate(
        {"jaxlm": jaxlm_step(shape, ids), "pytorch": torch_step(shape, ids)}, rounds
    )
    tokens = shape["B"] * shape["T"]
    result = {name: tokens / statistics.median(times) for name, times in seconds.items()}
    pairs = zip(seconds["pytorch"], seconds["jaxlm"], strict=True)
    return result | {"ratio": statistics.median(theirs / ours for theirs, ours in pairs)}


def start(doc: str | None, rounds: int) -> argparse.Namespace:
    """The arguments of a training benchmark, in a process that allocates as `train.py` does."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    arguments = parser.parse_args()
    keep_freed_memory()  # PyTorch, in the same process, gains from it too
    return arguments


def main() -> None:
    arguments = start(__doc__, rounds=12)
    for name, shape in SHAPES.items():
        result = compare(shape, arguments.rounds)
        if arguments.json:
            print(json.dumps({"shape": name} | result))
        else:
            print(
                f"{name}: jaxlm {result['jaxlm']:,.0f} tokens/s, PyTorch "
                f"{result['pytorch']:,.0f} tokens/s, ratio {result['ratio']:.2f}"
            )


if __name__ == "__main__":
    main()
