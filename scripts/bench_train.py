"""Training tokens/s of the training command beside the same GPT-2 in PyTorch, alternated.

    pip install -e ".[parity]" && python -m scripts.bench_train [--rounds 12] [--json]

All train the same shape with AdamW and clipping, in fp32, without dropout. jaxlm does it by the
loop of `train.py`, with all that this does between two evaluations; transformers' GPT2LMHeadModel
eagerly and, where there is a C++ compiler, by torch.compile, on one batch that lies ready. Each
round gives each a turn of some steps, so that a change in the machine's speed meets all; the ratio
is the median of the rounds'. The first fifth of a turn is not timed: the other library's threads
still spin while it begins.
"""

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable, Mapping

import torch
import transformers

from jaxlm.runtime import keep_freed_memory
from jaxlm.training.trainer import Trainer
from scripts.bench_loop import alternate_with

# What makes gpt_tiny.yaml the recipe of a shape, and the steps of a turn.
SHAPES = {
    "tiny": ("", 50),
    "small": (
        "--model.num_layers 6 --model.num_heads 6 --model.d_model 384 --data.seq_len 256 "
        "--train.batch_size 4 --data.tokenizer bpe --data.vocab_size 4096",
        10,
    ),
}
LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 1e-3, 0.1, 1.0
OPTIMIZER = (
    f"--optim.name adamw --optim.learning_rate {LEARNING_RATE} --optim.schedule constant "
    f"--optim.warmup_steps 0 --optim.weight_decay {WEIGHT_DECAY} --optim.clip_norm {CLIP_NORM}"
)
TURN = 4  # timed steps of `alternate`


class TorchTurns:
    """Turns of PyTorch's training step of a trainer's shape: eager and, if possible, compiled."""

    def __init__(self, trainer: Trainer, turn: int):
        self.turn, self.warm = turn, turn // 5
        self.seconds: dict[str, list[float]] = {}
        compilers = {"PyTorch": lambda model: model}
        if shutil.which("g++"):
            compilers["torch.compile"] = torch.compile
        torch.manual_seed(0)
        self.steps = {name: torch_step(trainer, done) for name, done in compilers.items()}

    def __call__(self) -> None:
        for name, step in self.steps.items():
            for _ in range(self.warm):
                step()
            began = time.perf_counter()
            for _ in range(self.turn - self.warm):
                step()
            taken = (time.perf_counter() - began) / (self.turn - self.warm)
            self.seconds.setdefault(name, []).append(taken)


def torch_step(trainer: Trainer, compiled: Callable) -> Callable[[], float]:
    shape, data = trainer.config.model.resolved(), trainer.config.data
    V, T, B = shape.vocab_size, data.seq_len, trainer.config.train.batch_size
    ids = torch.randint(0, V, (B, T + 1))
    config = transformers.GPT2Config(
        vocab_size=V,
        n_positions=T,
        n_embd=shape.d_model,
        n_layer=shape.num_layers,
        n_head=shape.num_heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = compiled(transformers.GPT2LMHeadModel(config).train())
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY
    )
    inputs, targets = ids[:, :-1], ids[:, 1:].reshape(-1)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        logits = model(inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, V), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        return loss.item()

    return step


def compare(words: str, turn: int, rounds: int) -> dict[str, float]:
    """Median tokens/s of all, and the median ratio of a round to each of PyTorch's."""
    others: list[TorchTurns] = []

    def turns_of(trainer: Trainer) -> TorchTurns:
        others.append(TorchTurns(trainer, turn))
        return others[0]

    given, warm = [*words.split(), *OPTIMIZER.split()], turn // 5
    # The first turn imports what saving needs, and PyTorch compiles in it.
    alternation = alternate_with(turns_of, "gpt_tiny", given, rounds + 1, turn, warm)
    config = alternation.trainer.config
    tokens = config.train.batch_size * config.data.seq_len
    ours = [wall / (turn - warm) for wall, _ in alternation.loop[1:]]
    result = {"jaxlm": tokens / statistics.median(ours)}
    for name, seconds in others[0].seconds.items():
        pairs = list(zip(seconds[1:], ours, strict=True))
        result[name] = tokens / statistics.median(seconds[1:])
        result[f"jaxlm / {name}"] = statistics.median(theirs / own for theirs, own in pairs)
    return result


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
    for name, (words, turn) in SHAPES.items():
        result = compare(words, turn, arguments.rounds)
        if arguments.json:
            print(json.dumps({"shape": name} | result))
            continue
        print(f"{name}: jaxlm {result['jaxlm']:,.0f} tokens/s")
        for other in ("PyTorch", "torch.compile"):
            if other in result:
                ratio = result[f"jaxlm / {other}"]
                print(f"  {other} {result[other]:,.0f} tokens/s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
