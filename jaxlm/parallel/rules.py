"""Over which axes of the mesh each parameter is divided, from its logical axes.

Those stand in the one table of parameters. What mirrors a parameter, such as its moments in an
optimizer's state or its average, is divided like it.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from jaxlm.config import ModelConfig
from jaxlm.models.parameters import logical_axes, path_name

# The axis of the mesh that divides a logical axis. Others are whole on every device.
MESH_AXES = {
    "d_model": "fsdp",
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "d_ff": "tensor",
}


def partition_spec(
    path: str, shape: tuple[int, ...], model: ModelConfig, mesh: Mesh | AbstractMesh
) -> PartitionSpec:
    """The axis of the mesh for each dim of a parameter; None for a dim that does not divide.

    Heads stay whole: fewer of them than devices, as kv heads may be, are on every device. Vectors
    of width d_model, such as the scales of norms, are too small to be divided.
    """
    model = model.resolved()
    whole = {"heads": model.num_heads, "kv_heads": model.num_kv_heads}

    def axis_of(name: str | None, size: int) -> str | None:
        axis = MESH_AXES.get(name or "")
        if axis is None or mesh.shape[axis] == 1 or (axis == "fsdp" and len(shape) < 2):
            return None
        return axis if math.gcd(size, whole.get(name or "", size)) % mesh.shape[axis] == 0 else None

    names = logical_axes(path, len(shape))
    return PartitionSpec(*map(axis_of, names, shape))


def tree_shardings(
    tree: Any, params: Mapping[str, Any], model: ModelConfig, mesh: Mesh | AbstractMesh
) -> Any:
    """The sharding of every leaf of a tree such as a training state, given its params.

    A leaf whose path ends with that of a parameter is divided like it where its last dims have
    the shape of it; all else is whole on every device.
    """
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    specs = {path: partition_spec(path, x.shape, model, mesh) for path, x in leaves.items()}

    def sharding_of(path: tuple, leaf: Any) -> NamedSharding:
        parts, spec = path_name(path).split("/"), PartitionSpec()
        names = ("/".join(parts[start:]) for start in range(len(parts)))
        if name := next((name for name in names if name in specs), None):
            shape = leaves[name].shape
            added = len(leaf.shape) - len(shape)
            if added >= 0 and leaf.shape[added:] == shape:
                spec = PartitionSpec(*[None] * added, *specs[name])
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding_of, tree)


def divided_shapes[T](
    shapes: T, params: Mapping[str, Any], model: ModelConfig, mesh: Mesh | AbstractMesh
) -> T:
    """Shapes of a tree such as a training state, each with its sharding."""
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        shapes,
        tree_shardings(shapes, params, model, mesh),
    )
