"""TrainState and the pure training step."""

import dataclasses
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from jaxlm.config import FinetuneConfig, JaxlmError
from jaxlm.models.parameters import add_lora, count_layers
from jaxlm.parallel import divided_activations
from jaxlm.tasks.task import Arrays, Objective, Params, Sums
from jaxlm.training.guard import Guard, Skips, chosen
from jaxlm.training.norms import layer_norms
from jaxlm.training.optimizers import Schedule
from jaxlm.training.trainable import joined, overlay, split, trained_paths

Metrics = dict[str, Array]


@flax.struct.dataclass
class Recent:
    """The trained params of the last evaluations, as a ring of them, and how many there were."""

    params: Params  # each leaf with a first dim over the ring
    count: Int[Array, ""]

    @jax.jit
    def mean(self, latest: Params) -> Params:
        """Their mean; `latest` where none were kept yet."""

        def average(ring: Array, leaf: Array) -> Array:
            held = jnp.arange(len(ring)) < self.count
            total = jnp.tensordot(held.astype(ring.dtype), ring, 1)
            return jnp.where(self.count == 0, leaf, total / jnp.maximum(held.sum(), 1))

        return jax.tree.map(average, self.params, latest)


@flax.struct.dataclass
class TrainState:
    """Everything that changes during training, and the functions that change it."""

    step: Int[Array, ""]
    params: Params  # the trained ones
    opt_state: Any
    key: Array
    ema: Params | None
    recent: "Recent | None" = flax.struct.field(default=None, kw_only=True)
    frozen: Params = flax.struct.field(default_factory=dict, kw_only=True)  # all others
    guard: Guard | None = flax.struct.field(default=None, kw_only=True)  # None: all are applied
    model: nn.Module = flax.struct.field(pytree_node=False)
    optimizer: optax.GradientTransformation = flax.struct.field(pytree_node=False)
    objective: Objective = flax.struct.field(pytree_node=False)
    accumulate_steps: int = flax.struct.field(pytree_node=False, default=1)
    ema_decay: float | None = flax.struct.field(pytree_node=False, default=None)
    schedule: Schedule | None = flax.struct.field(pytree_node=False, default=None)
    mesh: Mesh | None = flax.struct.field(pytree_node=False, default=None)
    log_norms: bool = flax.struct.field(pytree_node=False, default=False)


def train_step(state: TrainState, batch: Arrays) -> tuple[TrainState, Metrics]:
    """One update. The metrics are means over the batch, computed with the params before it.

    A guard may skip the update; the step counts all the same.
    """
    key = jax.random.fold_in(state.key, state.step)
    grads, sums = accumulated_gradients(state, batch, key)
    count = jnp.maximum(sums.pop("count"), 1)
    grads = jax.tree.map(lambda g: g / count, grads)
    updates, opt_state = state.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema, decay = state.ema, state.ema_decay
    if decay is not None:
        ema = jax.tree.map(lambda e, p: e + (1 - decay) * (p - e), ema, params)
    metrics = {name: value / count for name, value in sums.items()}
    metrics["grad_norm"] = optax.tree.norm(grads)
    if state.log_norms:
        metrics |= layer_norms(state.params, grads, updates)
    guard, applied = state.guard, state.step
    if guard is not None:
        applied -= guard.skipped  # the optimizer does not count skipped updates
        apply, guard = guard.judge(metrics["loss"], metrics["grad_norm"], state.step)
        new, old = (params, opt_state, ema), (state.params, state.opt_state, state.ema)
        params, opt_state, ema = chosen(apply, new, old)
        metrics |= {f"guard_{name}": getattr(guard, name) for name in Skips._fields}
    if state.schedule is not None:
        metrics["learning_rate"] = jnp.asarray(state.schedule(applied), jnp.float32)
    state = dataclasses.replace(
        state, step=state.step + 1, params=params, opt_state=opt_state, ema=ema, guard=guard
    )
    return state, metrics


def accumulated_gradients(state: TrainState, batch: Arrays, key: Array) -> tuple[Params, Sums]:
    """Gradients of the summed loss, and the objective's sums, added up over all micro-batches.

    `train_step` divides by the count once. Averaging the means of micro-batches would be wrong
    where they have different numbers of targets.
    """

    def loss(params: Params, part: Arrays, key: Array) -> tuple[Float[Array, ""], Sums]:
        with divided_activations(state.mesh):
            sums = state.objective(state.model, joined(params, state.frozen), part, key)
        if not isinstance(sums, Mapping) or not {"loss", "count"} <= sums.keys():
            told = list(sums) if isinstance(sums, Mapping) else type(sums).__name__
            raise JaxlmError(f"an objective returns a mapping with loss and count, got {told}")
        # A count is often the size of an array, a number of Python's.
        return sums["loss"], {name: jnp.asarray(value) for name, value in sums.items()}

    gradient = jax.grad(loss, has_aux=True)
    num = state.accumulate_steps
    if num == 1:
        return gradient(state.params, batch, key)
    parts = jax.tree.map(lambda x: x.reshape(num, x.shape[0] // num, *x.shape[1:]), dict(batch))

    def add(total: tuple, part: tuple) -> tuple[tuple, None]:
        return jax.tree.map(jnp.add, total, gradient(state.params, *part)), None

    keys = jax.random.split(key, num)
    first = jax.tree.map(lambda x: x[0], (parts, keys))
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, state.params, *first)
    )
    return jax.lax.scan(add, zeros, (parts, keys))[0]


def evaluation_params(state: TrainState) -> Params:
    """The params of the whole model for evaluation, sampling and export.

    Averaged ones where the run averages its weights.
    """
    return joined(averaged_params(state), state.frozen)


def averaged_params(state: TrainState) -> Params:
    """The trained params as evaluation uses them."""
    if state.ema is not None:
        return state.ema
    if state.recent is not None:
        return state.recent.mean(state.params)
    for inner in jax.tree.leaves(state.opt_state, is_leaf=is_schedule_free):
        if is_schedule_free(inner):
            return optax.contrib.schedule_free_eval_params(inner, state.params)
    return state.params


def remembered(state: TrainState) -> TrainState:
    """The state with its params among those of the last evaluations, if it keeps them."""
    recent = state.recent
    if recent is None:
        return state
    places = jax.tree.map(lambda x: x.sharding, recent)
    recent = put_recent(recent, state.params)
    if state.mesh is not None:  # the compiled step takes arrays as they lay before
        recent = jax.device_put(recent, places)
    return dataclasses.replace(state, recent=recent)


@jax.jit(donate_argnums=0)
def put_recent(recent: Recent, params: Params) -> Recent:
    """The params in place of the oldest of the ring."""

    def put(ring: Array, leaf: Array) -> Array:
        return ring.at[recent.count % len(ring)].set(leaf)

    return Recent(jax.tree.map(put, recent.params, params), recent.count + 1)


def is_schedule_free(opt_state: Any) -> bool:
    return isinstance(opt_state, optax.contrib.ScheduleFreeState)


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    key: Array,
    *,
    given: Mapping[str, Array] = MappingProxyType({}),
    finetune: FinetuneConfig | None = None,
    accumulate_steps: int = 1,
    ema_decay: float | None = None,
    average_last: int | None = None,
    schedule: Schedule | None = None,
    mesh: Mesh | None = None,
    log_norms: bool = False,
    guard: Guard | None = None,
) -> TrainState:
    """The state at step 0. Initial weights and dropout get different keys, derived from `key`.

    `given` are weights, by path, that replace random ones. `finetune` says which kernels get
    adapters and which parameters are trained (default: all).
    """
    init_key, step_key = jax.random.split(key)
    params = model.init(init_key, jnp.zeros((1, 1), jnp.int32))["params"]
    trained, frozen = params, {}
    if finetune is not None:
        fresh = flatten_dict(params, sep="/").keys() - given.keys()
        params = overlay(params, given)
        if finetune.lora_rank is not None:
            lora_key = jax.random.fold_in(init_key, finetune.lora_rank)
            scale, targets = finetune.lora_alpha, finetune.lora_targets
            params = add_lora(params, finetune.lora_rank, scale, targets, lora_key)
        paths = sorted(flatten_dict(params, sep="/"))
        trained, frozen = split(params, trained_paths(paths, fresh, finetune, count_layers(paths)))
    recent = None
    if average_last is not None:
        ring = jax.tree.map(lambda x: jnp.zeros((average_last, *x.shape), x.dtype), trained)
        recent = Recent(ring, jnp.zeros((), jnp.int32))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=trained,
        frozen=frozen,
        opt_state=optimizer.init(trained),
        key=jax.random.key_data(step_key),
        ema=None if ema_decay is None else jax.tree.map(jnp.copy, trained),
        recent=recent,
        model=model,
        optimizer=optimizer,
        objective=objective,
        accumulate_steps=accumulate_steps,
        ema_decay=ema_decay,
        schedule=schedule,
        mesh=mesh,
        log_norms=log_norms,
        guard=guard,
    )


def to_items(
    state: TrainState, own: Collection[str] | None = None
) -> tuple[Params, dict[str, Any]]:
    """The two items of a checkpoint: the params for evaluation, and the rest of the state.

    Of the params only those with the paths `own`, where given. Params before averaging are in the
    rest only if they differ, so that nothing is stored twice.
    """
    averaged = averaged_params(state)
    rest = {"step": state.step, "key": state.key, "opt_state": state.opt_state}
    if averaged is not state.params:
        rest["params"] = state.params
    if state.recent is not None:
        rest["recent"] = {"params": state.recent.params, "count": state.recent.count}
    if state.guard is not None:
        rest["guard"] = state.guard.items()
    params = joined(averaged, state.frozen)
    return params if own is None else split(params, own)[0], rest


def from_items(state: TrainState, params: Params, rest: dict[str, Any]) -> TrainState:
    """The inverse of `to_items`; functions, static fields and params not given are `state`'s."""
    whole = overlay(joined(state.params, state.frozen), flatten_dict(params, sep="/"))
    averaged, frozen = split(whole, flatten_dict(state.params, sep="/").keys())
    ema = None if state.ema is None else averaged
    changes = {"params": averaged, "frozen": frozen} | rest
    if "recent" in changes:
        changes["recent"] = Recent(**changes["recent"])
    if "guard" in changes and state.guard is not None:
        changes["guard"] = dataclasses.replace(state.guard, **changes["guard"])
    return dataclasses.replace(state, **changes, ema=ema)


@jax.jit
def worst_value(params: Any, opt_state: Any) -> Any:
    """0 if all values are usable, else NaN or infinity.

    Optimizer states may hold infinity, but no NaN; params may hold neither.
    """

    def worst(leaf: Any) -> Any:
        return jnp.sum(jnp.where(jnp.isfinite(leaf), 0, leaf), dtype=jnp.float32)

    def nan(leaf: Any) -> Any:
        return jnp.where(jnp.isnan(leaf).any(), jnp.nan, 0.0)

    def floats(tree: Any) -> list[Any]:
        return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]

    found = [*map(worst, floats(params)), *map(nan, floats(opt_state))]
    return sum(found, jnp.zeros(()))
