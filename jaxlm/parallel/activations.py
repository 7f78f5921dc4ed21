"""Activations divided by rows: a tap on the hidden states between the blocks of every trunk."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from jaxlm.models.trunk import Trunk
from jaxlm.nn.layers import UniformTap, identity
from jaxlm.parallel.mesh import ROWS


@dataclass(frozen=True)
class RowConstraint:
    """The tap that keeps hidden states (B, T, D) divided by rows, and whole in T and D.

    Without it XLA may follow the weights and divide them by D, which moves more.
    """

    mesh: Mesh

    def __call__(self, name: str, x: Array) -> Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec(ROWS)))


@contextmanager
def divided_activations(mesh: Mesh | None) -> Iterator[None]:
    """Within the block every trunk is called with this tap, unless it is given another.

    Kernels of attention are divided as well. So an objective, be it one's own, need not know of
    the mesh. Without a mesh nothing changes.
    """
    if mesh is None:
        yield
        return
    tap = UniformTap(RowConstraint(mesh))

    def with_tap(
        call: Callable[..., Any], args: tuple, keywords: dict[str, Any], context: Any
    ) -> Any:
        of_trunk = isinstance(context.module, Trunk) and context.method_name == "__call__"
        if of_trunk and keywords.get("tap", identity) is identity:
            keywords = keywords | {"tap": tap}
        return call(*args, **keywords)

    # Kernels, which XLA does not divide, see the mesh by this.
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.intercept_methods(with_tap):
        yield
