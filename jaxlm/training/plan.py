"""What a run will take, before it is trained: memory, FLOPs, exchange, time, and a mesh.

Figures come from the step compiled for the devices, which may be only described, and where XLA
cannot compile for them here from counting.
"""

import math
import re
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxlm.config import Config, ConfigError
from jaxlm.models import make_model
from jaxlm.parallel import (
    AXES,
    TopologyError,
    chip_of,
    described_devices,
    device_chip,
    make_mesh,
    mesh_shape,
)
from jaxlm.runtime import is_out_of_memory, memory_limit
from jaxlm.tasks import Task
from jaxlm.tasks.task import Arrays
from jaxlm.training.counting import (
    USABLE,
    StepCount,
    bytes_a_device,
    count_memory,
    count_moved,
    count_seconds,
    count_sent,
    suggest,
)
from jaxlm.training.programs import compile_and_start, make_programs
from jaxlm.training.resolve import Resolved, resolve

COLLECTIVES = r"\b(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
KERNELS = r'custom_call_target="((?:__cudnn|tpu_custom_call)[^"]*)"'
PROBE_FLOPS, PROBE_SECONDS, PROBE_STEPS = 5e11, 3.0, 5  # the most that a probe computes


@dataclass(frozen=True)
class Plan:
    """What a run takes; sizes in bytes, times in seconds. None: not known for this device."""

    name: str
    device: str
    devices: int
    mesh: dict[str, int]
    source: str  # where memory and collectives come from: "compiled" or "counted"
    why_counted: str | None
    stands_in: str | None  # the data that stands in for the run's own
    num_params: int
    num_trained: int
    rows: int
    accumulate_steps: int
    step_tokens: float
    flops: float  # a step, on all devices
    moved: float  # a step, a device
    moved_source: str
    state_memory: float  # a device
    working_memory: float  # gradients and activations
    device_memory: float
    fits: bool
    collectives: dict[str, int] | None  # in the compiled program, by kind
    kernels: dict[str, int] | None
    sent: dict[str, float]  # bytes a device sends in a step, by axis of the mesh
    step_seconds: float | None
    limited_by: str | None
    tokens_per_second: float | None
    largest_micro_batch: int | None  # rows on all devices together; None: not one a device
    suggested: dict[str, int] | None
    suggested_accumulate_steps: int | None
    steps: int
    tokens: float
    seconds: float | None
    checkpoint: float
    probe: "Probe"


@dataclass(frozen=True)
class Probe:
    """A few real steps on the first device of this machine; `skipped` says why there were none."""

    device: str
    rows: int = 0
    step_seconds: float | None = None
    tokens_per_second: float | None = None
    skipped: str | None = None


def make_plan(config: Config, device: str | None = None, devices: int | None = None) -> Plan:
    """What the config's run takes on so many devices of a kind, by default those of this machine.

    Raises: JaxlmError for a mistake in the config or the data.
    """
    chip = device_chip(device) if device else chip_of(jax.devices()[0].device_kind)
    if device is not None and config.model.compute_dtype is None:
        config = config.replace({"model": {"compute_dtype": "bfloat16"}})
    resolved, stands_in = resolve_or_stand_in(config)
    config, task = resolved.config, resolved.task
    number = devices or (1 if device else len(jax.devices()))
    axes: dict[str, int] = dict(zip(AXES, mesh_shape(config.parallel, number), strict=True))
    number = math.prod(axes.values())
    batch = task.train_batch(0)
    step = count_step(config, task, batch, resolved)
    kind = device or jax.devices()[0].device_kind
    held = chip.memory if device and chip else memory_limit()
    accumulate = config.train.accumulate_steps

    counted = count_memory(step, axes, accumulate)
    state, working = counted.state, counted.gradients + counted.activations
    found, why = None, None
    try:
        there = described_devices(device, number) if device else jax.devices()[:number]
        found = describe(compile_step(resolved, batch, there))
        state, working = found["arguments"], found["temporaries"]
    except TopologyError as error:
        why = str(error)
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        why = "XLA finds no room for it"
    # Of a loop XLA counts one round.
    looped = accumulate > 1 or config.model.scan_layers
    moved = found["moved"] if found and not looped else None
    fits = state + working <= USABLE * held and why != "XLA finds no room for it"
    probe = run_probe(resolved, batch, step)
    seconds, limit = None, None
    if chip is not None:
        times = count_seconds(step, chip, axes, accumulate, moved)
        seconds = times.total
        limit = "products" if times.products > times.memory else "memory"
    elif probe.tokens_per_second is not None and number == 1:
        seconds, limit = task.step_tokens / probe.tokens_per_second, "the probe"
    suggested = None
    if chip is not None:
        suggested = suggest(step, chip if device else replace(chip, memory=held), number)
    return Plan(
        name=config.run.name or "",
        device=kind,
        devices=number,
        mesh=axes,
        source="compiled" if found else "counted",
        why_counted=why,
        stands_in=stands_in,
        num_params=step.num_params,
        num_trained=step.num_trained,
        rows=step.rows,
        accumulate_steps=accumulate,
        step_tokens=task.step_tokens,
        flops=step.flops,
        moved=count_moved(step, axes, accumulate) if moved is None else moved,
        moved_source="counted" if moved is None else "compiled",
        state_memory=state,
        working_memory=working,
        device_memory=held,
        fits=fits,
        collectives=found and found["collectives"],
        kernels=found and found["kernels"],
        sent={axis: size for axis, size in count_sent(step, axes, accumulate).items() if size},
        step_seconds=seconds,
        limited_by=limit,
        tokens_per_second=None if seconds is None else task.step_tokens / seconds,
        largest_micro_batch=largest_micro_batch(step, axes, held, state, working),
        suggested=suggested and suggested[0],
        suggested_accumulate_steps=suggested and suggested[1],
        steps=config.train.steps,
        tokens=config.train.steps * task.step_tokens,
        seconds=None if seconds is None else config.train.steps * seconds,
        checkpoint=bytes_a_device(jax.tree.map(whole, step.shapes)),
        probe=probe,
    )


def whole(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def resolve_or_stand_in(config: Config) -> tuple[Resolved, str | None]:
    """The config, task and weights; data of the Hub is stood in for by bundled text, which gives
    batches of the same shapes.

    Raises: ConfigError where only that data could tell the size of the vocabulary.
    """
    if not config.data.source.startswith("hf:") or config.task.on_rows:
        return resolve(config, None, None), None
    size = config.model.vocab_size
    if size is None and config.data.tokenizer in ("bpe", "wordpiece", "unigram"):
        size = config.data.vocab_size
    if size is None:
        raise ConfigError(
            f"{config.data.source} is not read to plan a run; give model.vocab_size, which would "
            "follow from it"
        )
    text = {"source": "sample:tinyshakespeare", "tokenizer": "char", "hf_config": None}
    fields = {name: getattr(type(config.data), name) for name in ("hf_split", "max_documents")}
    config = config.replace({"data": text | fields, "model": {"vocab_size": size}})
    return resolve(config, None, None), "sample:tinyshakespeare"


def count_step(config: Config, task: Task, batch: Arrays, resolved: Resolved) -> StepCount:
    """The counts of a step of the task, whose batch is this one."""
    programs = make_programs(config, make_model(config.model), task.objective, None, resolved.given)
    rows = len(next(iter(batch.values())))
    both = config.model.architecture == "encoder_decoder"
    return StepCount(config, programs.shapes, rows, task.step_tokens / rows, 2 if both else 1)


def compile_step(resolved: Resolved, batch: Arrays, devices: list[Any]) -> Any:
    """The training step compiled for these devices, of which none need be here."""
    config, task = resolved.config, resolved.task
    mesh = make_mesh(config.parallel, devices)
    place = devices[0] if mesh is None else None
    model = make_model(config.model)
    programs = make_programs(config, model, task.objective, None, resolved.given, mesh, place)
    return programs.lower(batch).compile()


def describe(compiled: Any) -> dict[str, Any]:
    """What a compiled program holds and moves, in bytes a device, and what is in it."""
    memory, text = compiled.memory_analysis(), compiled.as_text()
    cost = compiled.cost_analysis() or {}
    return {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "moved": cost.get("bytes accessed"),
        "flops": cost.get("flops"),
        "collectives": dict(Counter(re.findall(COLLECTIVES, text))),
        "kernels": dict(Counter(re.findall(KERNELS, text))),
    }


def largest_micro_batch(
    step: StepCount, axes: dict[str, int], held: float, state: float, working: float
) -> int | None:
    """The most rows at once that fit, in proportion to the activations of the step as it is."""
    accumulate = step.config.train.accumulate_steps
    gradients = count_memory(step, axes, accumulate).gradients
    a_row = max(working - gradients, 0.1 * working) / (step.rows / accumulate)
    most = (USABLE * held - state - gradients) / a_row
    shards = axes["data"] * axes["fsdp"]
    return int(most // shards) * shards if most >= shards else None


def run_probe(resolved: Resolved, batch: Arrays, step: StepCount) -> Probe:
    """Time a few steps here, of as many rows as can be computed in a moment."""
    config, task = resolved.config, resolved.task
    kind = jax.devices()[0].device_kind
    chip = chip_of(kind)
    budget = PROBE_FLOPS if chip is None else PROBE_SECONDS / 10 * chip.peak_flops
    row = step.flops / step.rows
    rows = min(step.rows // config.train.accumulate_steps, int(budget // row))
    if rows == 0:
        return Probe(kind, skipped=f"a row alone takes {row / 1e12:,.1f} TFLOP")
    if (need := 2 * bytes_a_device(jax.tree.map(whole, step.shapes))) > memory_limit():
        return Probe(kind, skipped=f"it takes {need / 1e9:,.1f} GB")
    part = {name: np.asarray(x)[:rows] for name, x in batch.items()}
    config = config.replace({"train": {"batch_size": rows, "accumulate_steps": 1}})
    given = jax.tree.map(lambda x: x.copy(), resolved.given)  # init takes them over
    model = make_model(config.model)
    state, update = compile_and_start(config, model, task.objective, part, None, given)
    best = time_steps(state, update, part)
    tokens = rows * step.row_tokens
    return Probe(kind, rows, best, tokens / best)


def time_steps(state: Any, update: Any, batch: Arrays) -> float:
    """The median seconds of a few steps, after one that is not counted."""
    seconds, began = [], time.perf_counter()
    for _ in range(1 + PROBE_STEPS):
        start = time.perf_counter()
        state, metrics = update(state, batch)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - start)
        if len(seconds) > 1 and time.perf_counter() - began > PROBE_SECONDS:
            break
    return float(np.median(seconds[1:]))
