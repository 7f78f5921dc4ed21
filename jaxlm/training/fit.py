"""The training command as a function: config in, run directory and Loaded out."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import flax.linen as nn
import jax
import optax
from jaxtyping import Array

from jaxlm.artifact import Loaded
from jaxlm.checkpoint import saved_steps
from jaxlm.config import Config, ModelConfig
from jaxlm.loading import load
from jaxlm.models import make_model
from jaxlm.runtime import interruption, refuse_late_determinism
from jaxlm.tasks import Objective, Task
from jaxlm.tasks.task import Arrays
from jaxlm.training.optimizers import make_optimizer, make_schedule
from jaxlm.training.resolve import resolve
from jaxlm.training.run_directory import RunDirectory
from jaxlm.training.state import Metrics, TrainState, init_state, train_step
from jaxlm.training.trainable import scale_by_depth
from jaxlm.training.trainer import Trainer, Update

MakeModel = Callable[[ModelConfig], nn.Module]


def fit(
    config: Config,
    task: Task | None = None,
    model: nn.Module | MakeModel | None = None,
    optimizer: optax.GradientTransformation | None = None,
    objective: Objective | None = None,
) -> Loaded:
    """Train as the config says and return the best checkpoint: `train.py` as a function.

    The same config again continues an unfinished run, and leaves a finished one as it is. An own
    part takes the place of the config's: a task, a Flax module (or a function that makes one from
    the whole ModelConfig), an optimizer, an objective. Give the same ones when resuming.

    Raises:
        JaxlmError: on a mistake in the config or the data.
        KeyboardInterrupt: when interrupted, after saving.
    """
    if config.train.deterministic:
        refuse_late_determinism()
    if task is not None:
        config = config.replace({"task": {"name": "own"}})
    with RunDirectory(config) as run:
        todo = run.decide()
        if todo == "finished":
            print(f"{run.path} is finished; --run.overwrite true trains it anew")
            return load(run.path, model=model)
        config, task, given = resolve(config, task, objective)
        if model is None:
            module = make_model(config.model)
        else:
            module = model if isinstance(model, nn.Module) else model(config.model)
        first = task.train_batch(0)
        state, update = compile_and_start(config, module, task.objective, first, optimizer, given)
        trainer = Trainer(run, config, task, state, update)
        if todo == "start":
            run.start(config, task.tokenizer)
        else:
            trainer.restore(saved_steps(run.checkpoints)[-1])
        with interruption() as interrupted:
            trainer.train(interrupted)
        trainer.finish()
    return load(run.path, model=model)


def compile_and_start(
    config: Config,
    model: nn.Module,
    objective: Objective,
    batch: Arrays,
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
            model,
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

    def shape_of(batch: Arrays) -> tuple:
        return tuple(batch[name].shape for name in sorted(batch))

    def update(state: TrainState, batch: Arrays) -> tuple[TrainState, Metrics]:
        shape = shape_of(batch)
        if shape not in compiled:
            compiled[shape] = step.lower(state, batch).compile()
        return compiled[shape](state, batch)

    # XLA compiles outside Python's lock, so init is compiled while the step is traced.
    with ThreadPoolExecutor(1) as beside:
        state = beside.submit(init, key, given)
        compiled[shape_of(batch)] = step.lower(shapes, batch).compile()
        return state.result(), update
