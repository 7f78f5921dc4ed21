"""Time of the whole training loop beside that of its bare compiled step, alternated in one run.

    python scripts/bench_loop.py [--config gpt_tiny] [--rounds 20] [--turn 50] [--json]

The loop is that of `train.py` with all that it does between two evaluations: batches, metrics, the
checks of them, progress, checkpoints. After each turn of so many steps the bare step has its turn:
the loop's own state, one batch that lies on the device, nothing else, nor the guard that skips
updates (with `--guarded` it has that too: the loop's own program). (On a copy of the state the
same program was up to 7 % faster or slower: where arrays lie in memory matters as much.) The
overhead is the time of all the turns of the loop over that of all the bare ones, less one; beside
it the same for the processor time of all threads, which other programs disturb less.

`--rows 20000` puts so many rows of metrics before the first, as a run of 200,000 steps has.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax

from jaxlm.config import load_config
from jaxlm.models import make_model
from jaxlm.runtime import set_up
from jaxlm.training.programs import compile_and_start, cpu_options
from jaxlm.training.resolve import resolve
from jaxlm.training.run_directory import RunDirectory
from jaxlm.training.state import train_step
from jaxlm.training.trainer import Trainer

Times = tuple[float, float]


def now() -> Times:
    """Wall and processor seconds."""
    return time.perf_counter(), time.process_time()


class Alternation:
    """What the loop asks after each step, whether to stop, and where another program has its turn.

    It stops after so many `rounds`. The first `warm` steps of a turn of the loop are not timed.
    """

    def __init__(
        self, trainer: Trainer, rounds: int, turn: int, other: Callable[[], None], warm: int
    ):
        self.trainer, self.rounds, self.turn = trainer, rounds, turn
        self.other, self.warm = other, warm
        self.loop: list[Times] = []
        self.others: list[Times] = []
        self.began = now()

    def __call__(self, step: int) -> bool:
        done = (step - 1) % self.turn + 1
        if done == self.warm:
            jax.block_until_ready(self.trainer.state)
            self.began = now()
        if done == self.turn:
            jax.block_until_ready(self.trainer.state)
            between = now()
            self.other()
            ended = now()
            self.loop.append((between[0] - self.began[0], between[1] - self.began[1]))
            self.others.append((ended[0] - between[0], ended[1] - between[1]))
            self.began = now()
        return len(self.loop) == self.rounds


def alternate_with(
    other: Callable[[Trainer], Callable[[], None]],
    config: str,
    words: list[str],
    rounds: int,
    turn: int,
    warm: int = 0,
    rows: int = 0,
) -> Alternation:
    """Train a recipe for so many turns of steps, each followed by one of the other program.

    `rows` of metrics stand before the first step.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = [*words, "--run.dir", str(Path(folder) / "run"), "--sample.every", "0"]
        # Of so many steps, the run is compiled as a long one is.
        words += ["--train.steps", "1000000", "--train.eval_every", "1000000"]
        loaded = load_config(config, words)
        with RunDirectory(loaded) as run:
            resolved, task, given, heritage = resolve(loaded, None, None)
            model, first = make_model(resolved.model), task.train_batch(0)
            state, update = compile_and_start(resolved, model, task.objective, first, None, given)
            run.start(resolved, task.tokenizer)
            trainer = Trainer(run, resolved, task, state, update, heritage)
            row = {"step": 0, "split": "train", "loss": 1.0, "seconds": 0.0}
            trainer.history.rows += [row] * rows
            turns = Alternation(trainer, rounds, turn, other(trainer), warm)
            try:
                trainer.train(turns)
            except KeyboardInterrupt:
                if len(turns.loop) < rounds:
                    raise
            trainer.close()
    return turns


def bare_steps(trainer: Trainer, turn: int, guarded: bool) -> Callable[[], None]:
    """A turn of the compiled step, on the loop's own state."""
    batch = jax.device_put(dict(trainer.task.train_batch(0)))
    bare = jax.jit(train_step, donate_argnums=0, compiler_options=cpu_options())
    update = trainer.update if guarded else bare

    def steps() -> None:
        state, guard = trainer.state, trainer.state.guard
        state = state if guarded else dataclasses.replace(state, guard=None)
        for _ in range(turn):
            state, _ = update(state, batch)
        state = state if guarded else dataclasses.replace(state, guard=guard)
        trainer.state = jax.block_until_ready(state)

    return steps


def measure(name: str, rounds: int, turn: int, rows: int, guarded: bool) -> dict[str, float]:
    bare_turns = partial(bare_steps, turn=turn, guarded=guarded)
    turns = alternate_with(bare_turns, name, [], rounds + 1, turn, rows=rows)
    loop, bare = turns.loop[1:], turns.others[1:]  # the first turn imports what saving needs
    steps = turn * len(loop)
    sums = [[sum(times) for times in zip(*side, strict=True)] for side in (loop, bare)]
    return {
        "loop_ms": 1e3 * sums[0][0] / steps,
        "bare_ms": 1e3 * sums[1][0] / steps,
        "overhead": sums[0][0] / sums[1][0] - 1,
        "loop_cpu_ms": 1e3 * sums[0][1] / steps,
        "bare_cpu_ms": 1e3 * sums[1][1] / steps,
        "cpu_overhead": sums[0][1] / sums[1][1] - 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="gpt_tiny")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--turn", type=int, default=50)
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--guarded", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    set_up()
    given = arguments.config, arguments.rounds, arguments.turn, arguments.rows, arguments.guarded
    result = measure(*given)
    if arguments.json:
        print(json.dumps({"config": arguments.config} | result))
        return
    print(
        f"{arguments.config}: loop {result['loop_ms']:.2f} ms a step, bare step "
        f"{result['bare_ms']:.2f} ms, overhead {result['overhead']:.1%}; processor time "
        f"{result['loop_cpu_ms']:.2f} and {result['bare_cpu_ms']:.2f} ms, "
        f"{result['cpu_overhead']:.1%}"
    )


if __name__ == "__main__":
    main()
