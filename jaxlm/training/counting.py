"""What a training step takes, counted without compiling it: memory, bytes moved, and time.

The counts follow the blocks' arrays and are right to about a third; the constants say what they
assume, and `ASSUMED` says it in words.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType

from jaxlm.config import Config
from jaxlm.models.parameters import flops_per_token
from jaxlm.nn.layers import compute_dtype
from jaxlm.ops.chunked_loss import loss_chunk
from jaxlm.parallel import AXES, Chip, divided_shapes
from jaxlm.parallel.chips import GPUS_A_HOST, NETWORK
from jaxlm.training.state import TrainState
from jaxlm.training.trainable import joined

PRODUCTS, MOVING, SENDING = 0.6, 0.8, 0.8  # shares of the data sheet's figures that are reached
USABLE = 0.92  # of the memory: the rest is the runtime's
TRAFFIC = 16  # times that an activation kept for the backward pass is read or written, in all
ASSUMED = (
    f"assumed: products at {PRODUCTS:.0%} of the peak or memory at {MOVING:.0%} of its bandwidth, "
    f"whichever takes longer, then links at {SENDING:.0%}, not overlapped; {1 - USABLE:.0%} of the "
    "memory is the runtime's"
)


@dataclass(frozen=True)
class StepCount:
    """What a step is made of, whatever the mesh. `shapes` are those of the whole state."""

    config: Config
    shapes: TrainState
    rows: int
    row_tokens: float  # that a row holds, padding included
    sides: int  # 2 for an encoder_decoder, whose tokens pass one half each
    _divided: dict[tuple[int, ...], TrainState] = field(default_factory=dict, repr=False)

    @property
    def num_params(self) -> int:
        return sum(x.size for x in jax.tree.leaves((self.shapes.params, self.shapes.frozen)))

    @property
    def num_trained(self) -> int:
        return sum(x.size for x in jax.tree.leaves(self.shapes.params))

    @property
    def flops(self) -> float:
        """Model FLOPs of a step (PaLM's count): what is computed twice counts once."""
        length = round(self.row_tokens / self.sides)
        a_token = flops_per_token(self.config.model, self.num_params, length)
        return a_token * self.rows * self.row_tokens

    def flops_executed(self) -> float:
        """The same with the forward pass that full remat computes again."""
        return self.flops * (4 / 3 if self.config.model.remat == "full" else 1)

    def divided(self, sizes: Mapping[str, int]) -> TrainState:
        """The state's shapes on a mesh of these sizes."""
        shape = tuple(sizes[axis] for axis in AXES)
        if shape not in self._divided:
            mesh = AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))
            whole = joined(self.shapes.params, self.shapes.frozen)
            self._divided[shape] = divided_shapes(self.shapes, whole, self.config.model, mesh)
        return self._divided[shape]

    def kept_by_row(self) -> float:
        """Bytes of activations that the backward pass needs of a row, in the compute type."""
        model = self.config.model
        D, F, N, H = model.d_model, model.d_ff, model.num_heads, model.head_dim
        K = model.num_kv_heads
        products = (N + 2 * K) * H + N * H + F * (1 + model.gated) + 2 * D
        values = {"full": D, "dots": D + products, "none": 3 * D + products + F}[model.remat]
        layers = model.num_layers + (model.num_encoder_layers or 0) * (self.sides == 2)
        width = compute_dtype(model).itemsize
        kept = values * width * layers * self.row_tokens / self.sides
        # On a CPU, and in float32, no kernel spares the scores: each is kept twice, in float32.
        if width == 4:
            length = self.row_tokens / self.sides
            kept += 2 * 4 * N * length**2 * (1 if model.remat == "full" else layers)
        return kept

    def logits(self, rows: int, shards: int) -> float:
        """Bytes a device of the logits of so many rows, of a chunk where they are computed so."""
        model, length = self.config.model, round(self.row_tokens / self.sides)
        if self.config.task.on_rows and self.sides == 1:
            return 0.0
        chunk = loss_chunk(rows, length, model.vocab_size, model.loss_chunk) or length
        return 2 * 4 * rows / shards * chunk * model.vocab_size


@dataclass(frozen=True)
class Memory:
    """Bytes that a step takes on each device."""

    state: float
    gradients: float
    activations: float

    @property
    def total(self) -> float:
        return self.state + self.gradients + self.activations


def bytes_a_device(shapes: Any) -> int:
    """The memory that arrays of these shapes take on each device."""

    def size(leaf: Any) -> int:
        shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
        return math.prod(shape) * leaf.dtype.itemsize

    return sum(map(size, jax.tree.leaves(shapes)))


def count_memory(step: StepCount, sizes: Mapping[str, int], accumulate: int) -> Memory:
    """The memory of a step on a mesh, in so many micro-batches."""
    state = step.divided(sizes)
    gradients = bytes_a_device(state.params) * (2 if accumulate > 1 else 1)
    rows, shards = step.rows // accumulate, sizes["data"] * sizes["fsdp"]
    # The hidden states are whole on every device of the axis tensor; what is within blocks is not.
    kept = rows / shards * step.kept_by_row() * (0.25 + 0.75 / sizes["tensor"])
    logits = step.logits(rows, shards * sizes["tensor"])
    return Memory(bytes_a_device(state), gradients, kept + logits)


def count_moved(step: StepCount, sizes: Mapping[str, int], accumulate: int) -> float:
    """Bytes that a device reads and writes in its own memory in a step."""
    state = step.divided(sizes)
    weights = bytes_a_device((state.params, state.frozen))
    rows = step.rows / sizes["data"] / sizes["fsdp"]
    kept = rows * step.kept_by_row() * (0.25 + 0.75 / sizes["tensor"])
    update = 2 * bytes_a_device(state) + 2 * bytes_a_device(state.params)
    return TRAFFIC * kept + 3 * weights * accumulate + update


def count_sent(step: StepCount, sizes: Mapping[str, int], accumulate: int) -> dict[str, float]:
    """Bytes that a device sends in a step, along each axis of the mesh."""
    data, fsdp, tensor = (sizes[axis] for axis in AXES)
    gradients = bytes_a_device(step.divided(sizes).params)
    whole = 4 * step.num_params / tensor
    hidden = step.rows / data / fsdp * step.row_tokens * step.config.model.d_model
    hidden *= compute_dtype(step.config.model).itemsize

    def ring(size: int) -> float:  # what each device sends of an array that all of them gather
        return (size - 1) / size

    return {
        "data": 2 * ring(data) * gradients,
        # Weights are gathered forward and backward, gradients are summed and scattered.
        "fsdp": 3 * ring(fsdp) * whole * accumulate,
        # Two sums a block, forward and backward.
        "tensor": 2 * ring(tensor) * 4 * step.config.model.num_layers * hidden,
    }


@dataclass(frozen=True)
class Seconds:
    """The time of a step by what limits it."""

    products: float
    memory: float
    links: float

    @property
    def total(self) -> float:
        return max(self.products, self.memory) + self.links


def count_seconds(
    step: StepCount,
    chip: Chip,
    sizes: Mapping[str, int],
    accumulate: int,
    moved: float | None = None,
) -> Seconds:
    """The time of a step on such chips; `moved` are the bytes a device moves, where known."""
    number = math.prod(sizes.values())
    moved = count_moved(step, sizes, accumulate) if moved is None else moved
    sent, links, within = count_sent(step, sizes, accumulate), 0.0, number
    for axis in AXES:  # the first axis is the outermost, and goes across hosts first
        across = chip.is_gpu and within > GPUS_A_HOST
        links += sent[axis] / (SENDING * (NETWORK if across else chip.links))
        within //= sizes[axis]
    return Seconds(
        step.flops_executed() / number / (PRODUCTS * chip.peak_flops),
        moved / (MOVING * chip.bandwidth),
        links,
    )


def divisions(number: int) -> Iterator[dict[str, int]]:
    """Every mesh of so many devices."""
    for tensor in range(1, number + 1):
        for fsdp in range(1, number // tensor + 1):
            if number % (fsdp * tensor) == 0:
                data = number // fsdp // tensor
                yield dict(zip(AXES, (data, fsdp, tensor), strict=True))


def micro_batches(step: StepCount, sizes: Mapping[str, int]) -> list[int]:
    """Values of train.accumulate_steps that give each device whole rows, the smallest first."""
    shards = sizes["data"] * sizes["fsdp"]
    numbers = (n for n in range(1, step.rows + 1) if step.rows % n == 0)
    return [n for n in numbers if step.rows // n % shards == 0]


def suggest(step: StepCount, chip: Chip, number: int) -> tuple[dict[str, int], int] | None:
    """The fastest mesh of so many devices, and the fewest micro-batches, whose memory suffices.

    None where no mesh has enough.
    """
    model, best = step.config.model, None
    for sizes in divisions(number):
        if math.gcd(model.num_heads, model.num_kv_heads or 1) % sizes["tensor"]:
            continue
        for accumulate in micro_batches(step, sizes):
            if count_memory(step, sizes, accumulate).total <= USABLE * chip.memory:
                seconds = count_seconds(step, chip, sizes, accumulate).total
                if best is None or seconds < 0.98 * best[0]:  # simpler meshes come first
                    best = seconds, sizes, accumulate
                break
    return best and best[1:]
