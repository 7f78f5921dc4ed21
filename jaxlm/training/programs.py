"""The two compiled programs of a run: the state at step 0, and the training step."""

import platform
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jaxtyping import Array

from jaxlm.config import Config, ConfigError, FinetuneConfig, OptimConfig, TrainConfig
from jaxlm.parallel import divided_shapes, place, row_shapes, tree_shardings
from jaxlm.runtime import memory_limit
from jaxlm.tasks import Objective
from jaxlm.tasks.task import Arrays
from jaxlm.training.counting import bytes_a_device
from jaxlm.training.guard import make_guard
from jaxlm.training.optimizers import Schedule, make_optimizer, make_schedule
from jaxlm.training.state import Metrics, TrainState, init_state, train_step
from jaxlm.training.trainable import joined, scale_by_depth
from jaxlm.training.trainer import Update

# XLA's CPU backend multiplies by YNNPACK and Eigen unless it is told to by oneDNN, which it holds
# on x86: on two cores products are a fifth faster by it, a whole step of GPT an eighth. But JAX
# cannot keep such a program in its cache.
ONEDNN = {
    "xla_cpu_use_onednn": True,
    "xla_cpu_experimental_onednn_fusion_type": "LIBRARY_FUSION_TYPE_DOT",
}
# FLOPs of a run, a minute of two cores, from which on more is saved than compiling takes.
LONG = 5e12


@dataclass(frozen=True)
class Programs:
    """What a run computes, as functions to be compiled, and the shapes of its state.

    The shapes say where each array lies if there is a mesh, or a device was named.
    """

    shapes: TrainState
    init: Any  # jitted: (key, given weights by path) -> state
    step: Any  # jitted: (state, batch) -> state, metrics
    mesh: Mesh | None
    device: Any = None

    def lower(self, batch: Arrays) -> Any:
        """The training step, traced for a batch of these shapes and for where its arrays lie."""
        shapes = row_shapes(batch, self.mesh)
        if self.device is not None:
            shapes = placed(shapes, self.device)
        return self.step.lower(self.shapes, shapes)


class Parts(NamedTuple):
    """What the state at step 0 is made of; runs whose parts are equal share compiled programs."""

    model: nn.Module
    optimizer: optax.GradientTransformation
    schedule: Schedule | None
    objective: Objective
    finetune: FinetuneConfig
    train: TrainConfig
    ema_decay: float | None
    mesh: Mesh | None


def first_state(parts: Parts, key: Array, given: Mapping[str, Array]) -> TrainState:
    """The state at step 0; `given` are weights, by path, that replace random ones."""
    train = parts.train
    return init_state(
        parts.model,
        parts.optimizer,
        parts.objective,
        key,
        given=given,
        finetune=parts.finetune,
        accumulate_steps=train.accumulate_steps,
        ema_decay=parts.ema_decay,
        average_last=train.average_last,
        schedule=parts.schedule,
        mesh=parts.mesh,
        log_norms=train.log_norms,
        guard=make_guard(train),
    )


@lru_cache(maxsize=16)
def update_rule_of(
    optim: OptimConfig, steps: int, layer_decay: float, num_layers: int
) -> tuple[optax.GradientTransformation, Schedule]:
    """The optimizer and the schedule of a run: the same objects for the same settings."""
    optimizer = make_optimizer(optim, steps)
    if layer_decay != 1:
        optimizer = optax.chain(optimizer, scale_by_depth(layer_decay, num_layers))
    return optimizer, make_schedule(optim, steps, optim.learning_rate)


@lru_cache
def cpu_options() -> dict[str, Any]:
    """XLA's options for a step on one CPU: ONEDNN where it has these, which are experimental."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return {}
    try:
        jax.jit(jnp.negative, compiler_options=ONEDNN).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return ONEDNN


def onednn_pays(shapes: TrainState, batch: Arrays, config: Config) -> bool:
    """Whether a run is on a CPU and LONG, at 6 FLOPs a parameter and token."""
    params = sum(x.size for x in jax.tree.leaves((shapes.params, shapes.frozen)))
    tokens = max(x.size for x in jax.tree.leaves(batch))
    return jax.default_backend() == "cpu" and 6 * params * tokens * config.train.steps > LONG


def compiled_with(options: dict[str, Any], lowered: Any) -> Any:
    """A program compiled with options of XLA."""
    if not options:
        return lowered.compile()
    with warnings.catch_warnings():
        # What multiplies by oneDNN it cannot keep.
        warnings.filterwarnings("ignore", "Error writing persistent compilation cache")
        return lowered.compile(options)


def placed(shapes: Any, device: Any) -> Any:
    """Shapes of arrays that lie on one device, which may be only described."""
    place = SingleDeviceSharding(device)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)


def make_programs(
    config: Config,
    model: nn.Module,
    objective: Objective,
    optimizer: optax.GradientTransformation | None,
    given: Mapping[str, Any],
    mesh: Mesh | None = None,
    device: Any = None,
) -> Programs:
    """The programs of a config. `given` are weights, or their shapes, that replace random ones.

    Without a `mesh` they are compiled for one `device`, by default JAX's own.
    """
    optim, steps, schedule = config.optim, config.train.steps, None
    depth_scale = config.finetune.layer_decay, config.model.num_layers
    if optimizer is None:
        # What the user's own code reads may have changed since it was last traced.
        made = update_rule_of.__wrapped__ if config.run.own else update_rule_of
        optimizer, schedule = made(optim, steps, *depth_scale)
    elif config.finetune.layer_decay != 1:
        optimizer = optax.chain(optimizer, scale_by_depth(*depth_scale))
    parts = Parts(
        model, optimizer, schedule, objective, config.finetune, config.train, optim.ema_decay, mesh
    )
    options: dict[str, Any] = {"static_argnums": 0, "donate_argnums": 2}
    init = jax.jit(first_state, **options)
    shapes = init.eval_shape(parts, jax.random.key(0), given)
    for_step: dict[str, Any] = {}
    if mesh is not None:
        params = joined(shapes.params, shapes.frozen)
        shapes = divided_shapes(shapes, params, config.model, mesh)
        places = jax.tree.map(lambda x: x.sharding, shapes)
        init = jax.jit(first_state, out_shardings=places, **options)
        for_step = {"out_shardings": (places, NamedSharding(mesh, PartitionSpec()))}
    elif device is not None:
        shapes = placed(shapes, device)
    step = jax.jit(train_step, donate_argnums=0, **for_step)
    return Programs(shapes, partial(init, parts), step, mesh, device)


def compile_and_start(
    config: Config,
    model: nn.Module,
    objective: Objective,
    batch: Arrays,
    optimizer: optax.GradientTransformation | None,
    given: Mapping[str, Array],
    mesh: Mesh | None = None,
) -> tuple[TrainState, Update]:
    """The state at step 0, made by one compiled program, and the compiled training step.

    `given` are weights, by path, that replace random ones. The step is compiled for the shapes of
    `batch` at once, and for other shapes when they first occur. On a `mesh`, both compute on all
    of its devices, and the state is divided over it.
    """
    programs = make_programs(config, model, objective, optimizer, given, mesh)
    shapes = programs.shapes
    refuse_too_large(shapes)
    if mesh is not None:
        params = joined(shapes.params, shapes.frozen)
        given = jax.tree.map(place, given, tree_shardings(given, params, config.model, mesh))
    options = cpu_options() if mesh is None and onednn_pays(shapes, batch, config) else {}
    compiled: dict[tuple, Update] = {}

    def shape_of(batch: Arrays) -> tuple:
        return tuple(batch[name].shape for name in sorted(batch))

    def update(state: TrainState, batch: Arrays) -> tuple[TrainState, Metrics]:
        shape = shape_of(batch)
        if shape not in compiled:
            compiled[shape] = compiled_with(options, programs.step.lower(state, batch))
        return compiled[shape](state, batch)

    # XLA releases Python's lock, so init compiles while the step is traced.
    with ThreadPoolExecutor(1) as beside:
        state = beside.submit(programs.init, jax.random.key(config.run.seed), given)
        compiled[shape_of(batch)] = compiled_with(options, programs.lower(batch))
        return state.result(), update


def refuse_too_large(shapes: TrainState) -> None:
    """Raise ConfigError if weights and optimizer state alone exceed the device's memory."""
    need, held = bytes_a_device(shapes), memory_limit()
    if need > held:
        raise ConfigError(
            f"the model's weights and the state of the optimizer take {need / 1e9:,.1f} GB, but "
            f"there are {held / 1e9:,.1f} GB of memory; lower the sizes of the model section"
        )
