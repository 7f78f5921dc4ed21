"""Many devices: the mesh of a run, and how rows, weights and activations are divided over it."""

from jaxlm.parallel.activations import divided_activations
from jaxlm.parallel.chips import (
    DEVICES,
    Chip,
    TopologyError,
    chip_of,
    described_devices,
    device_chip,
    peak_flops,
)
from jaxlm.parallel.mesh import (
    AXES,
    described,
    everywhere,
    make_mesh,
    mesh_of,
    mesh_shape,
    mesh_sizes,
    on_this_process,
    place,
    place_rows,
    row_shapes,
)
from jaxlm.parallel.rules import divided_shapes, partition_spec, tree_shardings

__all__ = [
    "AXES",
    "DEVICES",
    "Chip",
    "TopologyError",
    "chip_of",
    "described",
    "described_devices",
    "device_chip",
    "divided_activations",
    "divided_shapes",
    "everywhere",
    "make_mesh",
    "mesh_of",
    "mesh_shape",
    "mesh_sizes",
    "on_this_process",
    "partition_spec",
    "peak_flops",
    "place",
    "place_rows",
    "row_shapes",
    "tree_shardings",
]
