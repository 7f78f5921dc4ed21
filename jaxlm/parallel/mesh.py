"""The mesh of devices that a run computes on, and the rows of batches laid over it.

Its axes are `data`, `fsdp` and `tensor`. Rows of a batch are divided over the first two together.
A run on one device has no mesh, written None: its programs are the same as without this package.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxlm.config import ConfigError, ParallelConfig

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")


def make_mesh(config: ParallelConfig, devices: Sequence[Any] | None = None) -> Mesh | None:
    """The mesh that the config asks for, of the first of the devices (default: all there are).

    None for one device. Raises: ConfigError where there are too few, or -1 cannot be filled in.
    """
    devices = jax.devices() if devices is None else devices
    sizes = mesh_shape(config, len(devices))
    used = devices[: math.prod(sizes)]
    if len(used) == 1:
        return None
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=used)


def mesh_shape(config: ParallelConfig, number: int) -> tuple[int, ...]:
    """The sizes of the axes on so many devices, -1 filled in; they may leave some devices unused.

    Raises: ConfigError where there are too few, or -1 cannot be filled in.
    """
    sizes = list(config.sizes)
    asked = ", ".join(f"{axis} {size}" for axis, size in zip(AXES, sizes, strict=True))
    given = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        if number % given:
            raise ConfigError(
                f"parallel ({asked}) asks for a multiple of {given} devices, but there are {number}"
            )
        sizes[sizes.index(-1)] = number // given
    elif given > number:
        raise ConfigError(f"parallel ({asked}) asks for {given} devices, but there are {number}")
    return tuple(sizes)


def mesh_sizes(mesh: Mesh | None) -> dict[str, int]:
    """The number of devices along each axis."""
    return dict.fromkeys(AXES, 1) if mesh is None else dict(mesh.shape)


def described(mesh: Mesh | None) -> str:
    """The devices in words: `cpu`, or `8 x TPU v5 lite (data 4, tensor 2)`."""
    if mesh is None:
        return jax.devices()[0].device_kind
    sizes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1)
    return f"{mesh.size} x {mesh.devices.flat[0].device_kind} ({sizes})"


def mesh_of(params: Any) -> Mesh | None:
    """The mesh that arrays lie on; None for a single device."""
    for leaf in jax.tree.leaves(params):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and set(AXES) <= set(sharding.mesh.axis_names):
            mesh = sharding.mesh
            return mesh if isinstance(mesh, Mesh) else None
    return None


def row_sharding(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
    """Of an array whose first dim is that of rows; whole on each device where they do not divide.

    What is computed from such a batch is divided all the same: activations may be uneven.
    """
    number = math.prod(mesh.shape[axis] for axis in ROWS)
    even = len(shape) > 0 and shape[0] % number == 0
    return NamedSharding(mesh, PartitionSpec(ROWS) if even else PartitionSpec())


def place_rows(batch: Mapping[str, Any], mesh: Mesh | None) -> dict[str, jax.Array]:
    """A batch on the devices of the mesh, its rows divided."""
    if mesh is None:
        return jax.device_put(dict(batch))
    return {name: place(x, row_sharding(mesh, x.shape)) for name, x in batch.items()}


def place(x: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """An array on the devices of a sharding, of which each process fills its own."""
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])


def everywhere(tree: Any, mesh: Mesh | None) -> Any:
    """Within a compiled program: arrays that are whole on every device, and so in every process."""
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def on_this_process(tree: Any) -> Any:
    """The arrays of a tree, whole on the first device of this process if others hold parts.

    All processes call it together.
    """
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
        return tree
    device = jax.local_devices()[0]

    def gathered(leaf: jax.Array) -> jax.Array:
        return jax.device_put(multihost_utils.process_allgather(leaf, tiled=True), device)

    return jax.tree.map(gathered, tree)


def row_shapes(batch: Mapping[str, Any], mesh: Mesh | None) -> dict[str, Any]:
    """What `place_rows` makes of a batch, as shapes alone."""

    def described(x: Any) -> jax.ShapeDtypeStruct:
        sharding = None if mesh is None else row_sharding(mesh, x.shape)
        dtype = jax.dtypes.canonicalize_dtype(x.dtype)
        return jax.ShapeDtypeStruct(x.shape, dtype, sharding=sharding)

    return {name: described(x) for name, x in batch.items()}
