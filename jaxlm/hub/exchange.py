"""The engine that moves tensors between their names and our params by a family's table."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlm.config import JaxlmError, ModelConfig
from jaxlm.hub.configs import family_of
from jaxlm.hub.tables import Family, Row
from jaxlm.models import CausalLM

Leaves = dict[str, Any]


def import_tensors(tensors: Mapping[str, np.ndarray], config: ModelConfig) -> dict[str, Any]:
    """Params of our model, copied from tensors under their names.

    JaxlmError lists all that is missing, left over or of another shape.
    """
    family, shapes = family_of(config), leaf_shapes(config)
    rows, faults = rows_for(family, config, shapes)
    leaves: Leaves = {}
    for row in rows:
        if row.theirs not in tensors:
            faults.append(f"{row.theirs} is missing: {' and '.join(row.ours)} would come from it")
            continue
        for path, part in zip(row.ours, row.layout.read(tensors[row.theirs]), strict=True):
            if part.shape != shapes[path].shape:
                faults.append(
                    f"{row.theirs} ({row.layout.name}) has the shape {part.shape} where "
                    f"{path} has {shapes[path].shape}"
                )
            else:
                leaves[path] = jnp.array(part, shapes[path].dtype)
    faults += leftovers(family, tensors, {row.theirs for row in rows})
    refuse(faults, f"the tensors do not fit a {family.name} of this config")
    return unflatten_dict(leaves, sep="/")


def export_tensors(params: Mapping[str, Any], config: ModelConfig) -> dict[str, np.ndarray]:
    """The tensors of a model under their names and in their layout; JaxlmError as on import."""
    family, shapes = family_of(config), leaf_shapes(config)
    rows, faults = rows_for(family, config, shapes)
    leaves: Leaves = flatten_dict(params, sep="/")
    faults += [f"{path} is missing" for path in shapes if path not in leaves]
    for path, leaf in leaves.items():
        if path not in shapes:
            faults.append(f"{path} has no place in the model")
        elif leaf.shape != shapes[path].shape:
            faults.append(f"{path} has the shape {leaf.shape}, not {shapes[path].shape}")
    refuse(faults, f"the params do not fit a {family.name} of this config")
    return {row.theirs: row.layout.write([np.asarray(leaves[p]) for p in row.ours]) for row in rows}


def leaf_shapes(config: ModelConfig) -> Leaves:
    """Shape and type of every leaf of our model by its path, without allocating it."""
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    shapes = jax.eval_shape(CausalLM(config).init, jax.random.key(0), ids)
    return flatten_dict(shapes["params"], sep="/")


def rows_for(family: Family, config: ModelConfig, shapes: Leaves) -> tuple[list[Row], list[str]]:
    """The rows of the table that apply to our tree, each layer's apart, and the leaves in doubt."""
    rows: dict[Row, None] = {}  # in order, and a row without a layer only once
    for row in family.rows:
        for concrete in map(row.at, range(config.num_layers)):
            if all(path in shapes for path in concrete.ours):
                rows[concrete] = None
    counts = Counter(path for row in rows for path in row.ours)
    faults = [
        f"{path} is filled by {counts[path]} rows of the table, not by one"
        for path in shapes
        if counts[path] != 1
    ]
    return list(rows), faults


def leftovers(family: Family, tensors: Mapping[str, np.ndarray], used: set[str]) -> list[str]:
    """Tensors that no row reads and that may not be ignored."""
    faults = []
    for name in sorted(set(tensors) - used):
        rule = next((r for r in family.ignored if re.fullmatch(r.pattern, name)), None)
        if rule is None:
            faults.append(f"{name} has no place in the model")
        elif not np.array_equal(tensors[name], tensors.get(rule.same_as or name, tensors[name])):
            faults.append(f"{name} should be {rule.reason}, but differs from {rule.same_as}")
    return faults


def refuse(faults: list[str], summary: str) -> None:
    if faults:
        raise JaxlmError("\n  ".join([f"{summary}:", *faults]))
