"""The training command as a function: config in, run directory and Loaded out."""

import math
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxlm.artifact import Loaded
from jaxlm.base_model import newest_base
from jaxlm.config import Config, ConfigError, ModelConfig, to_yaml
from jaxlm.config.schema import require
from jaxlm.loading import load
from jaxlm.models import make_model
from jaxlm.parallel import make_mesh, mesh_sizes
from jaxlm.processes import SharedError, first_alone, of_all, stop_requests
from jaxlm.runtime import is_out_of_memory, memory_limit, refuse_late_determinism
from jaxlm.tasks import TASKS, Objective, Task
from jaxlm.tasks.task import Arrays
from jaxlm.training.dry_run import rehearse, run_place
from jaxlm.training.goodput import Goodput
from jaxlm.training.history import TrainingError
from jaxlm.training.optimizers import make_schedule
from jaxlm.training.programs import compile_and_start
from jaxlm.training.recorded_config import recorded
from jaxlm.training.resolve import load_source, resolve
from jaxlm.training.run_directory import RunDirectory
from jaxlm.training.trainer import Trainer

MakeModel = Callable[[ModelConfig], nn.Module]


def fit(
    config: Config,
    task: Task | None = None,
    model: nn.Module | MakeModel | None = None,
    optimizer: optax.GradientTransformation | None = None,
    objective: Objective | None = None,
) -> Loaded:
    """Train as the config says and return the best checkpoint; what `train.py` runs.

    Called again with the same config it continues an unfinished run, and leaves a finished one as
    it is. A part of your own replaces the config's: a task, a Flax module (or a function that makes
    one from the resolved ModelConfig), an optimizer, an objective. Pass the same ones to resume.

    Raises:
        JaxlmError: on a mistake in the config or the data.
        KeyboardInterrupt: when interrupted, after saving.
    """
    if not isinstance(config, Config):
        raise ConfigError(f"fit takes what jaxlm.load_config returns, got {config!r:.60}")
    if config.train.deterministic:
        refuse_late_determinism()
    check_parts(task, model, optimizer, objective)
    own = own_parts(task=task, model=model, optimizer=optimizer, objective=objective)
    config, goodput = with_own_parts(config, own), Goodput()
    if task is not None:
        config = config.replace({"task": {"name": "own"}})
    with run_place(config) as config, RunDirectory(config) as run, device_errors_told(config):
        todo = run.decide()
        if todo == "finished":
            print(f"{run.path} is finished; --run.overwrite true trains it anew")
            below = newest_base(run.checkpoints)
            base = below and load_source(str(config.finetune.init_from), run.path)[0]
            return load(run.path, model=model, base=base)
        goes_on = run.path if todo == "resume" else None
        asked, part = config, task
        config, task, given, heritage = first_alone(
            lambda: resolve(asked, part, objective, goes_on)
        )
        refuse_other_process(config, task)
        make = make_model if model is None else model
        module = make if isinstance(make, nn.Module) else make(config.model)
        mesh = make_mesh(config.parallel)
        refuse_large_batch(config, mesh)
        with own_errors_told(own, {}):
            first = task.train_batch(0)
        if jax.default_backend() != "cpu":
            print(f"compiling for {jax.devices()[0].device_kind}, up to a minute", flush=True)
        with own_errors_told(own, first):
            with goodput.spent("compiling"):
                parts = (config, module, task.objective, first, optimizer, given, mesh)
                made = compile_and_start(*parts)
            trainer = Trainer(run, config, task, *made, heritage, goodput)
            try:
                if config.train.dry_run:
                    return rehearse(trainer, model)
                if todo == "start":
                    run.start(config, task.tokenizer)
                else:
                    trainer.restore()
                    tell_lengthening(run, config, int(trainer.state.step))
                    run.resume(config, task.tokenizer)
                with stop_requests() as stopped:
                    trainer.train(stopped)
                return trainer.finish(model)
            finally:
                trainer.close()


def refuse_other_process(config: Config, task: Task) -> None:
    """SharedError where the config or the data of some process are not those of the first."""
    # Other data may make another config, by its vocabulary.
    for what, own in (("data", task.fingerprint), ("config", to_yaml(recorded(config)))):
        first, *others = of_all(own)
        if other := [number for number, given in enumerate(others, 1) if given != first]:
            raise SharedError(
                f"process {other[0]} has another {what} than the first; give all processes of a "
                "run the same command and the same files"
            )


def own_parts(**parts: Any) -> tuple[str, ...]:
    """The parts passed to `fit`, as a run records them in `run.own`."""
    given = {kind: part for kind, part in parts.items() if part is not None}
    return tuple(
        f"{kind} {getattr(part, '__name__', type(part).__name__)}" for kind, part in given.items()
    )


def check_parts(task: Any, model: Any, optimizer: Any, objective: Any) -> None:
    """ConfigError for an own part that is not what `fit` takes."""
    fits = {
        "task": (task, isinstance(task, Task), "a Task"),
        "model": (model, callable(model), "a Flax module, or a function that makes one"),
        "optimizer": (
            optimizer,
            hasattr(optimizer, "update"),
            "made by optax, as optax.adam(1e-3)",
        ),
        "objective": (objective, callable(objective), "a function of model, params, batch and key"),
    }
    for name, (part, good, wanted) in fits.items():
        require(part is None or good, name, wanted, part)


@contextmanager
def own_errors_told(own: tuple[str, ...], batch: Arrays) -> Iterator[None]:
    """TrainingError, with what a batch holds, for a mistake in the code of an own part."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        here, libraries = str(Path(__file__).parents[1]), sysconfig.get_paths().values()
        theirs = [f for f in frames if not f.filename.startswith((here, "<", *libraries))]
        if not own or not theirs:
            raise
        held = ", ".join(f"{name} {list(x.shape)}" for name, x in sorted(batch.items()))
        place = f"{Path(theirs[-1].filename).name} line {theirs[-1].lineno}"
        raise TrainingError(
            f"the own {' or '.join(own)} fails with {type(error).__name__} at {place}: "
            f"{' '.join(str(error).split()):.200}"
            + f"; batch holds {held}, and key is None in evaluation"
            * bool(held)
        ) from error


def with_own_parts(config: Config, own: tuple[str, ...]) -> Config:
    """The config with these parts recorded in `run.own`.

    Raises: ConfigError where the config records other parts.
    """
    if config.run.own and config.run.own != own:
        raise ConfigError(
            f"run.own says that fit was given {', '.join(config.run.own)}, but now it is given "
            f"{', '.join(own) or 'none'}: give the same own parts, or leave run.own out"
        )
    return config.replace({"run": {"own": own}})


def tell_lengthening(run: RunDirectory, config: Config, step: int) -> None:
    """Print how a larger `train.steps` changes the learning rate of a run that is resumed."""
    then, optim = run.steps_recorded(), config.optim
    if then == config.train.steps:
        return
    told = f"{run.path} is lengthened from {then} to {config.train.steps} steps"
    if any(part.startswith("optimizer ") for part in config.run.own):
        print(told)
        return
    before, after = (
        float(make_schedule(optim, steps, optim.learning_rate)(step))
        for steps in (then, config.train.steps)
    )
    rate = f"goes from {before:.3g} to {after:.3g}" if before != after else f"stays {after:.3g}"
    print(
        f"{told}: the schedule {optim.schedule} now runs over all of them, and at step {step} the "
        f"learning rate {rate}"
    )


@contextmanager
def device_errors_told(config: Config) -> Iterator[None]:
    """Turn what a device says when it cannot go on into a TrainingError of one sentence."""
    try:
        yield
    except IndexError as error:
        if not config.train.deterministic or "absl::" not in str(error):
            raise
        # XLA's, seen with JAX 0.11.2 on an H200 at every first step.
        raise TrainingError(
            f"JAX {jax.__version__} fails to run deterministic programs on "
            f"{jax.devices()[0].device_kind}; "
            "leave train.deterministic out, or take another version of JAX"
        ) from None
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            if jax.process_count() == 1:
                raise
            raise TrainingError(
                "another process of the run has ended, or cannot be reached; the same command on "
                f"all of them goes on from the last checkpoint ({str(error).splitlines()[0]:.200})"
            ) from None
        raise TrainingError(
            "the device has too little memory for a step; lower train.batch_size, raise "
            "train.accumulate_steps, or take a smaller model"
        ) from None


def refuse_large_batch(config: Config, mesh: Mesh | None) -> None:
    """ConfigError where what the blocks of a model keep of a batch alone exceeds the memory.

    Of a row one token is counted, and of an own task's batch, whose size is its own, nothing.
    """
    if config.task.name not in TASKS:
        return
    sizes = mesh_sizes(mesh)
    rows = config.train.batch_size / config.train.accumulate_steps / sizes["data"] / sizes["fsdp"]
    tokens = math.ceil(rows) * (1 if config.task.on_rows else config.data.seq_len)
    width = jnp.dtype(config.model.compute_dtype).itemsize * config.model.d_model
    need, held = tokens * width * config.model.num_layers, memory_limit()
    if need > held:
        raise ConfigError(
            f"train.batch_size {config.train.batch_size} takes more than {need / 1e9:,.1f} GB, but "
            f"there are {held / 1e9:,.1f} GB of memory; lower it, or raise train.accumulate_steps"
        )
