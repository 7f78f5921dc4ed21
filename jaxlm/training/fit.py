"""The training command as a function: config in, run directory and Loaded out."""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from jaxlm.artifact import Loaded
from jaxlm.config import Config, ConfigError, ModelConfig
from jaxlm.loading import load
from jaxlm.models import make_model
from jaxlm.parallel import divided_shapes, make_mesh, mesh_sizes, row_shapes, tree_shardings
from jaxlm.runtime import interruption, memory_limit, refuse_late_determinism
from jaxlm.tasks import TASKS, Objective, Task
from jaxlm.tasks.task import Arrays
from jaxlm.training.history import TrainingError
from jaxlm.training.optimizers import make_optimizer, make_schedule
from jaxlm.training.resolve import resolve
from jaxlm.training.run_directory import RunDirectory
from jaxlm.training.state import Metrics, TrainState, init_state, train_step
from jaxlm.training.trainable import joined, scale_by_depth
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
    own = own_parts(task=task, model=model, optimizer=optimizer, objective=objective)
    config = with_own_parts(config, own)
    if task is not None:
        config = config.replace({"task": {"name": "own"}})
    with RunDirectory(config) as run, exhaustion_told():
        todo = run.decide()
        if todo == "finished":
            print(f"{run.path} is finished; --run.overwrite true trains it anew")
            return load(run.path, model=model)
        config, task, given, origin = resolve(config, task, objective)
        if model is None:
            module = make_model(config.model)
        else:
            module = model if isinstance(model, nn.Module) else model(config.model)
        mesh = make_mesh(config.parallel)
        refuse_large_batch(config, mesh)
        state, update = compile_and_start(
            config, module, task.objective, task.train_batch(0), optimizer, given, mesh
        )
        trainer = Trainer(run, config, task, state, update, given.keys(), origin)
        try:
            if todo == "start":
                run.start(config, task.tokenizer)
            else:
                trainer.restore()
                tell_lengthening(run, config, int(trainer.state.step))
                run.resume(config, task.tokenizer)
            with interruption() as interrupted:
                trainer.train(interrupted)
            return trainer.finish(model)
        finally:
            trainer.close()


def own_parts(**parts: Any) -> tuple[str, ...]:
    """The parts given to `fit` by name, as a run records them."""
    given = {kind: part for kind, part in parts.items() if part is not None}
    return tuple(
        f"{kind} {getattr(part, '__name__', type(part).__name__)}" for kind, part in given.items()
    )


def with_own_parts(config: Config, own: tuple[str, ...]) -> Config:
    """The config with the own parts recorded; ConfigError where it was recorded with others."""
    if config.run.own and config.run.own != own:
        raise ConfigError(
            f"run.own says that fit was given {', '.join(config.run.own)}, but now it is given "
            f"{', '.join(own) or 'none'}: give the same own parts, or leave run.own out"
        )
    return config.replace({"run": {"own": own}})


def tell_lengthening(run: RunDirectory, config: Config, step: int) -> None:
    """Say what more steps than the run was begun with do to its learning rate."""
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
def exhaustion_told() -> Iterator[None]:
    """TrainingError, in one sentence, for a device that runs out of memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
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


def refuse_too_large(shapes: TrainState) -> None:
    """ConfigError where the weights and the optimizer's state alone exceed the memory."""

    def size(leaf: jax.ShapeDtypeStruct) -> int:
        shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
        return math.prod(shape) * leaf.dtype.itemsize

    need, held = sum(map(size, jax.tree.leaves(shapes))), memory_limit()
    if need > held:
        raise ConfigError(
            f"the model's weights and the state of the optimizer take {need / 1e9:,.1f} GB, but "
            f"there are {held / 1e9:,.1f} GB of memory; lower the sizes of the model section"
        )


def compile_and_start(
    config: Config,
    model: nn.Module,
    objective: Objective,
    batch: Arrays,
    optimizer: optax.GradientTransformation | None,
    given: Mapping[str, Array],
    mesh: Mesh | None = None,
) -> tuple[TrainState, Update]:
    """The state at step 0, built by one compiled program, and the training step.

    `given` are weights by path that take the place of random ones. The step is compiled once for
    each shape of batch, at first for `batch`. Where there is a `mesh`, both compute on all of it,
    and the state is divided over it.
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

    def start(key: Array, given: Mapping[str, Array]) -> TrainState:
        return init_state(
            model,
            own,
            objective,
            key,
            given=given,
            finetune=config.finetune,
            accumulate_steps=train.accumulate_steps,
            ema_decay=optim.ema_decay,
            average_last=train.average_last,
            schedule=schedule,
            mesh=mesh,
        )

    key = jax.random.key(config.run.seed)
    shapes = jax.eval_shape(start, key, given)
    for_init: dict[str, Any] = {}
    for_step: dict[str, Any] = {}
    if mesh is not None:
        params = joined(shapes.params, shapes.frozen)
        shapes = divided_shapes(shapes, params, config.model, mesh)
        places = jax.tree.map(lambda x: x.sharding, shapes)
        for_init = {"out_shardings": places}
        for_step = {"out_shardings": (places, NamedSharding(mesh, PartitionSpec()))}
        given = jax.device_put(given, tree_shardings(given, params, config.model, mesh))
    refuse_too_large(shapes)
    init = jax.jit(start, donate_argnums=1, **for_init)
    step = jax.jit(train_step, donate_argnums=0, **for_step)
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
        compiled[shape_of(batch)] = step.lower(shapes, row_shapes(batch, mesh)).compile()
        return state.result(), update
