"""Many devices: the mesh of a run, and how rows, weights and activations are divided over it."""

from jaxlm.parallel.activations import divided_activations
from jaxlm.parallel.mesh import described, make_mesh, mesh_of, mesh_sizes, place_rows, row_shapes
from jaxlm.parallel.rules import divided_shapes, partition_spec, tree_shardings

__all__ = [
    "described",
    "divided_activations",
    "divided_shapes",
    "make_mesh",
    "mesh_of",
    "mesh_sizes",
    "partition_spec",
    "place_rows",
    "row_shapes",
    "tree_shardings",
]
