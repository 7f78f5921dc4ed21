"""The training command as a function: config in, run directory and Loaded out."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import optax
from jaxtyping import Array

from jaxlm.artifact import Loaded
from jaxlm.checkpoint import saved_steps
from jaxlm.config import Config
from jaxlm.loading import load
from jaxlm.models import make_model
from jaxlm.runtime import keep_compiled_programs, keep_freed_memory
from jaxlm.training.beginning import begin
from jaxlm.training.objectives import Batch, Objective
from jaxlm.training.optimizers import make_optimizer, make_schedule
from jaxlm.training.rundir import RunDirectory
from jaxlm.training.state import Metrics, TrainState, init_state, train_step
from jaxlm.training.trainable import scale_by_depth
from jaxlm.training.trainer import Trainer, Update


def fit(
    config: Config,
    objective: Objective | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> Loaded:
    """Train as the config says and return the best checkpoint: `train.py` as a function.

    The same config again continues an unfinished run, and leaves a finished one as it is. An own
    `objective` or `optimizer` takes the place of the config's; give the same one when resuming.
    Raises JaxlmError on a mistake in the config or the data, KeyboardInterrupt when interrupted
    (after saving).
    """
    set_up_jax(config)
    with RunDirectory(config) as run:
        todo = run.decide()
        if todo == "finished":
            print(f"{run.path} is finished; --run.overwrite true trains it anew")
            return load(run.path)
        config, work, given = begin(config, objective)
        first = work.train_batch(0)
        state, update = compile_and_start(config, work.objective, first, optimizer, given)
        trainer = Trainer(run, config, work, state, update)
        if todo == "start":
            run.start(config, work.tokenizer)
        else:
            trainer.restore(saved_steps(run.checkpoints)[-1])
        with interruption() as interrupted:
            trainer.train(interrupted)
        trainer.finish()
    return load(run.path)


def set_up_jax(config: Config) -> None:
    """What a run asks of JAX and of the C library, before their first use."""
    if config.train.deterministic:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    keep_compiled_programs()
    keep_freed_memory()


def compile_and_start(
    config: Config,
    objective: Objective,
    batch: Batch,
    optimizer: optax.GradientTransformation | None,
    given: Mapping[str, Array],
) -> tuple[TrainState, Update]:
    """The state at step 0, built by one compiled program, and the training step.

    `given` are weights by path that take the place of random ones. The step is compiled once for
    each shape of batch, at first for `batch`.
    """
    train, optim = config.train, config.optim
    schedule = None
    if optimizer is None:
        optimizer = make_optimizer(optim, train.steps)
        schedule = make_schedule(optim, train.steps, optim.learning_rate)
    if config.finetune.layer_decay != 1:
        slower = scale_by_depth(config.finetune.layer_decay, config.model.num_layers)
        optimizer = optax.chain(optimizer, slower)
    own = optimizer
    init = jax.jit(
        lambda key, given: init_state(
            make_model(config.model),
            own,
            objective,
            key,
            given=given,
            finetune=config.finetune,
            accumulate_steps=train.accumulate_steps,
            ema_decay=optim.ema_decay,
            schedule=schedule,
        ),
        donate_argnums=1,
    )
    key = jax.random.key(config.run.seed)
    shapes = init.eval_shape(key, given)
    step = jax.jit(train_step, donate_argnums=0)
    compiled: dict[tuple, Update] = {}

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        shape = tuple(batch[name].shape for name in sorted(batch))
        if shape not in compiled:
            compiled[shape] = step.lower(state, batch).compile()
        return compiled[shape](state, batch)

    # XLA compiles outside Python's lock, so init is compiled while the step is traced.
    with ThreadPoolExecutor(1) as beside:
        state = beside.submit(init, key, given)
        first = tuple(batch[name].shape for name in sorted(batch))
        compiled[first] = step.lower(shapes, batch).compile()
        return state.result(), update


@contextlib.contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """A function that tells whether Ctrl-C or SIGTERM came; a second one interrupts at once."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return

    def note(number: int, _: object) -> None:
        came.set()
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
