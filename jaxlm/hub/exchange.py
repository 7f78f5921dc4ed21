"""Tensors converted between Hugging Face's names and our params by a family's table."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlm.artifact import FIRST_DEVICE, Placement
from jaxlm.config import JaxlmError, ModelConfig
from jaxlm.hub.configs import family_of
from jaxlm.hub.tables import Family, TensorRow
from jaxlm.models import shapes_by_path

Leaves = dict[str, Any]
SHOWN = 8  # faults that an error lists one by one
# What puts a prefix before the names of a model inside it.
WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "torch's DataParallel",
    "base_model.": "PEFT",
}


@runtime_checkable
class Tensors(Protocol):
    """Tensors by name, perhaps in files: shapes are known without reading."""

    def keys(self) -> Iterable[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def read(self, name: str) -> np.ndarray: ...


@dataclass(frozen=True)
class Held:
    """Tensors by name, in memory."""

    arrays: Mapping[str, np.ndarray]

    def keys(self) -> Iterable[str]:
        return self.arrays.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return np.shape(self.arrays[name])

    def read(self, name: str) -> np.ndarray:
        return np.asarray(self.arrays[name])


def import_tensors(
    tensors: Tensors | Mapping[str, np.ndarray],
    config: ModelConfig,
    family: Family | None = None,
    placement: Placement = FIRST_DEVICE,
) -> dict[str, Any]:
    """Params of our model from tensors under Hugging Face's names, read one at a time.

    Raises: JaxlmError, which lists all tensors that are missing, left over, of another shape, or
    not finite.
    """
    tensors = Held(tensors) if isinstance(tensors, Mapping) else tensors
    family = family or family_of(config)
    shapes = shapes_by_path(config)
    rows, faults = rows_for(family, config, shapes)
    check_wrappers(tensors, family, {row.theirs for row in rows})
    sources = source_names(tensors, family, {row.theirs for row in rows}, faults)
    for row in rows:
        if row.theirs not in sources:
            faults.append(f"{row.theirs} is missing: {' and '.join(row.ours)} would come from it")
            continue
        # An array that takes no memory, to get the shape that the layout gives.
        stand_in = np.broadcast_to(np.float32(0), tensors.shape(sources[row.theirs]))
        for path, part in zip(row.ours, row.layout.read(stand_in), strict=True):
            if part.shape != shapes[path].shape:
                faults.append(
                    f"{row.theirs} ({row.layout.name}) has the shape {part.shape} where "
                    f"{path} has {shapes[path].shape}"
                )
    faults += leftovers(family, config, tensors, sources, {row.theirs for row in rows})
    summary = f"the tensors do not fit a {family.name} of this config"
    refuse(faults, summary)
    leaves: Leaves = {}
    for row in rows:
        tensor = tensors.read(sources[row.theirs])
        if not np.isfinite(tensor).all():
            faults.append(f"{row.theirs} holds values that are not finite")
        elif not fits(tensor, placement.dtype):
            faults.append(f"{row.theirs} holds values too large for {placement.dtype}")
        for path, part in zip(row.ours, row.layout.read(tensor), strict=True):
            if not faults:
                leaves[path] = placement.put(path, part)
    refuse(faults, summary)
    return unflatten_dict(leaves, sep="/")


def export_tensors(params: Mapping[str, Any], config: ModelConfig) -> dict[str, np.ndarray]:
    """The tensors of a model under Hugging Face's names and in their layout.

    Raises: JaxlmError where the params do not fit the config.
    """
    return dict(exported(params, config))


def exported(
    params: Mapping[str, Any],
    config: ModelConfig,
    dtype: Any = np.float32,
    others: Mapping[str, Any] = MappingProxyType({}),
    family: Family | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """Each tensor of a model with its Hugging Face name, converted one at a time.

    `others` gives the types, by name, of tensors that differ from `dtype`.

    Raises: JaxlmError, before the first tensor, where the params do not fit the config, and at a
    tensor with a value that is not finite in its type.
    """
    family, shapes = family or family_of(config), shapes_by_path(config)
    rows, faults = rows_for(family, config, shapes)
    leaves: Leaves = flatten_dict(params, sep="/")
    faults += [f"{path} is missing" for path in shapes if path not in leaves]
    for path, leaf in leaves.items():
        if path not in shapes:
            faults.append(f"{path} has no place in the model")
        elif leaf.shape != shapes[path].shape:
            faults.append(f"{path} has the shape {leaf.shape}, not {shapes[path].shape}")
    refuse(faults, f"the params do not fit a {family.name} of this config")
    bare = config.head == "none"
    for row in rows:
        name = row.theirs.removeprefix(family.prefix) if bare else row.theirs
        tensor = row.layout.write([np.asarray(leaves[path]) for path in row.ours])
        kind = np.dtype(others.get(name, dtype))
        written = np.ascontiguousarray(cast(tensor, kind))
        if not np.isfinite(written).all():
            if np.isfinite(tensor).all():
                most = float(np.abs(tensor).max())
                raise JaxlmError(f"{name} reaches {most:.4g}, too large for {kind}: take float32")
            raise JaxlmError(f"{name} holds values that are not finite")
        yield name, written


def cast(tensor: np.ndarray, kind: Any) -> np.ndarray:
    """The tensor in a type; what is too large for it becomes infinite."""
    with np.errstate(over="ignore"):
        return tensor.astype(kind, copy=False)


def fits(tensor: np.ndarray, kind: Any) -> bool:
    """Whether finite values stay finite in a type."""
    if jnp.finfo(tensor.dtype).max <= jnp.finfo(kind).max:
        return True
    return bool(np.isfinite(cast(tensor, kind)).all())


def check_wrappers(tensors: Tensors, family: Family, wanted: set[str]) -> None:
    """Raise JaxlmError where all names differ by one prefix from ours, with what puts it there."""
    names = list(tensors.keys())
    known = wanted | {name.removeprefix(family.prefix) for name in wanted}
    if any(name in known for name in names):
        return
    for name in names[:100]:
        inner = max((k for k in known if name.endswith(f".{k}")), key=len, default=None)
        prefix = name.removesuffix(inner) if inner else ""
        if prefix and all(other.startswith(prefix) for other in names):
            by = next((by for part, by in WRAPPERS.items() if part in prefix), "something")
            raise JaxlmError(
                f"the names of all tensors begin with {prefix!r}, such as {name}: {by} puts that "
                "there; save the model that is inside it"
            )


def rows_for(
    family: Family, config: ModelConfig, shapes: Leaves
) -> tuple[list[TensorRow], list[str]]:
    """The rows that apply to these params, one a layer, and faults: leaves not filled just once."""
    rows: dict[TensorRow, None] = {}  # keeps the order, and a row without a layer once
    for row in family.rows:
        if row.heads and config.head not in row.heads:
            continue
        if row.when is not None and getattr(config, row.when[0]) != row.when[1]:
            continue
        for concrete in map(row.at, range(max(config.num_layers, config.num_encoder_layers or 0))):
            if all(path in shapes for path in concrete.ours):
                rows[concrete] = None
    counts = Counter(path for row in rows for path in row.ours)
    faults = [
        f"{path} is filled by {counts[path]} rows of the table, not by one"
        for path in shapes
        if counts[path] != 1
    ]
    return list(rows), faults


def source_names(
    tensors: Tensors, family: Family, wanted: set[str], faults: list[str]
) -> dict[str, str]:
    """The names in `tensors` by their names in the table; duplicates are added to `faults`.

    Old files call a norm's weight gamma and its bias beta; models without a head lack the prefix.
    """
    sources: dict[str, str] = {}
    for name in tensors.keys():  # noqa: SIM118, not a mapping
        known = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
        if known not in wanted and not known.startswith(family.prefix):
            prefixed = family.prefix + known
            ignored = any(re.fullmatch(rule.pattern, prefixed) for rule in family.ignored)
            known = prefixed if prefixed in wanted or ignored else known
        if known in sources:
            faults.append(f"{name} and {sources[known]} are the same tensor")
        sources[known] = name
    return sources


def leftovers(
    family: Family, config: ModelConfig, tensors: Tensors, sources: dict[str, str], used: set[str]
) -> list[str]:
    """Faults for tensors that no row reads and that may not be ignored."""
    faults = []
    for known in sorted(set(sources) - used):
        rules = [r for r in family.ignored if not r.heads or config.head in r.heads]
        rule = next((r for r in rules if re.fullmatch(r.pattern, known)), None)
        if rule is None:
            faults.append(f"{sources[known]} has no place in the model")
            continue
        others = (rule.same_as,) if isinstance(rule.same_as, str) else rule.same_as
        if same_as := next((name for name in others if name in sources), None):
            this, other = (tensors.read(sources[name]) for name in (known, same_as))
            if not np.array_equal(this, other):
                faults.append(
                    f"{sources[known]} should be {rule.reason}, but differs from {same_as}"
                )
    return faults


def refuse(faults: list[str], summary: str) -> None:
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise JaxlmError("\n  ".join([f"{summary}:", *faults[:SHOWN], *more]))
