"""Norms of each layer's parameters, gradients and updates, computed within the training step.

They tell where training goes wrong: a layer whose gradients vanish or explode, or one whose updates
are far larger or smaller, beside its parameters, than those of the others.
"""

from typing import Any

import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from jaxtyping import Array

from jaxlm.models.parameters import layer_of


def layer_norms(params: Any, gradients: Any, updates: Any) -> dict[str, Array]:
    """The Euclidean norms of three trees alike by layer, as `param_norm/layers_0` and so on.

    Gradients are those of the mean loss before clipping; updates what is added to the parameters.
    An update of a thousandth of its parameters, in norm, is usual.
    """
    trees = {"param_norm": params, "grad_norm": gradients, "update_norm": updates}
    norms = {}
    for kind, tree in trees.items():
        layers: dict[str, list[Array]] = {}
        leaves: dict[str, Any] = flatten_dict(tree, sep="/")
        for path, leaf in leaves.items():
            layers.setdefault(layer_of(path), []).append(leaf.astype(jnp.float32))
        norms |= {f"{kind}/{name}": optax.tree.norm(own) for name, own in layers.items()}
    return norms
