"""`train.dry_run`: everything that a run does, once, and what the whole run will then take."""

import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from jaxlm.artifact import Loaded
from jaxlm.config import Config
from jaxlm.processes import agreed
from jaxlm.training.console import TrainingConsole, duration
from jaxlm.training.prefetch import Prefetch
from jaxlm.training.trainer import Trainer

TIMED_STEPS = 4  # after the first, which is slower
MOST_CHECKPOINTS = 3  # at once: the last, the best, and the one that is being written


@contextmanager
def run_place(config: Config) -> Iterator[Config]:
    """The config as it is, or for a dry run that of a temporary directory, which is removed."""
    if not config.train.dry_run:
        yield config
        return
    parent = Path(str(config.resolved().run.dir)).absolute().parent
    disk = parent if parent.is_dir() else None  # the disk that the run will write to
    kept = ExitStack()

    def make() -> str:
        temporary = tempfile.TemporaryDirectory(prefix="jaxlm-dry-run-", dir=disk)
        return kept.enter_context(temporary)

    with kept:
        folder = agreed(make)
        place = replace(config.run, dir=str(Path(folder) / "run"), resume="auto", overwrite=False)
        yield replace(config, run=place)


def rehearse(trainer: Trainer, model: Any) -> Loaded:
    """One step, one evaluation, one sample and one checkpoint; prints what the run will take.

    Returns the model after the step, as `fit` does.
    """
    run, config, task = trainer.run, trainer.config, trainer.task
    train, sample = config.train, config.sample
    run.start(config, task.tokenizer)
    ahead = Prefetch(task, config.model, 0, 1 + TIMED_STEPS, trainer.state.mesh)
    with ahead as batches, TrainingConsole(1, 0) as trainer.console:
        trainer.state, metrics = trainer.update(trainer.state, batches.take())
        trainer.step = 1
        trainer._log(1, metrics)
        trainer._fetch()
        evaluating = timed(lambda: trainer._evaluate(1))
        sampling = timed(lambda: trainer._sample(1)) if sample.every else 0.0
        saving = timed(lambda: (trainer._save(1), trainer.saving.checkpoints.wait()))
        loaded = trainer.load_best(model)
        jax.block_until_ready(trainer.state)
        began = time.perf_counter()
        for _ in range(TIMED_STEPS):
            trainer.state, metrics = trainer.update(trainer.state, batches.take())
        jax.block_until_ready((trainer.state, metrics))
        step = (time.perf_counter() - began) / TIMED_STEPS
    size = sum(file.stat().st_size for file in run.checkpoints.rglob("*") if file.is_file())
    parts = {
        "steps": train.steps * step,
        "evaluations": -(-train.steps // train.eval_every) * evaluating,
        "samples": -(-train.steps // sample.every) * sampling if sample.every else 0.0,
        # They are written beside the steps: this is the most that they can cost.
        "checkpoints": -(-train.steps // train.checkpoint_every) * saving,
    }
    told = ", ".join(f"{duration(seconds)} of {name}" for name, seconds in parts.items() if seconds)
    free = shutil.disk_usage(run.path).free
    need = MOST_CHECKPOINTS * size
    print(
        f"dry run of {config.run.name}: one step, evaluation and checkpoint are done and removed\n"
        f"time: {duration(sum(parts.values()))} for {train.steps:,} steps at "
        f"{task.step_tokens / step:,.0f} tokens/s ({told})\n"
        f"disk: {size / 1e6:,.1f} MB a checkpoint, up to {need / 1e6:,.1f} MB; "
        f"{free / 1e9:,.1f} GB are free{'' if need < free else ', WHICH IS TOO LITTLE'}\n"
        f"memory: {peak_memory() / 1e9:,.2f} GB at most so far"
    )
    return loaded


def timed(do: Callable[[], Any]) -> float:
    """The seconds that a function takes."""
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def peak_memory() -> int:
    """The most bytes that the first device held; on a CPU, the process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    of_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return stats.get("peak_bytes_in_use") or of_process
