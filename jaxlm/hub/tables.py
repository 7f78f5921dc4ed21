"""What a family's table is made of: rows of paths with their layout, and what is left out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

REQUIRED = object()  # in place of a default: their config must give the attribute


@dataclass(frozen=True)
class Layout:
    """A named change of layout: one tensor of theirs to leaves of ours, and back."""

    name: str
    read: Callable[[np.ndarray], Sequence[np.ndarray]]
    write: Callable[[Sequence[np.ndarray]], np.ndarray]


SAME = Layout("same", lambda tensor: [tensor], lambda leaves: leaves[0])
# A Linear of torch holds (out, in), our kernels (in, out).
TRANSPOSED = Layout("transposed", lambda tensor: [tensor.T], lambda leaves: leaves[0].T)
# Uneven thirds do not raise: their shapes are compared with the model's afterwards.
THIRDS = Layout(
    "thirds of the last dim",
    lambda tensor: np.array_split(np.atleast_1d(tensor), 3, axis=-1),
    lambda leaves: np.concatenate(leaves, axis=-1),
)


@dataclass(frozen=True)
class Row:
    """Leaves of ours and the one tensor of theirs that holds them; `{i}` stands for the layer."""

    ours: tuple[str, ...]
    theirs: str
    layout: Layout = SAME

    def at(self, layer: int) -> "Row":
        ours = tuple(path.format(i=layer) for path in self.ours)
        return Row(ours, self.theirs.format(i=layer), self.layout)


@dataclass(frozen=True)
class Ignored:
    """Tensors of theirs, by regular expression, that we need not read, and why."""

    pattern: str
    reason: str
    same_as: str | None = None  # and only as long as it equals this tensor


@dataclass(frozen=True)
class Family:
    """How one family of theirs is written in our words, tensors and config alike.

    A row applies when our tree has its leaves. `structure` holds the fields of ours that make the
    family, None being the derived value. The rest is their config: `fields` gives for a field of
    ours their attribute and its default, `demands` the attributes that must have one value (a
    list: throughout), `harmless` the names of those that do not change what the model computes.
    """

    name: str
    rows: tuple[Row, ...]
    ignored: tuple[Ignored, ...]
    structure: Mapping[str, Any]
    fields: Mapping[str, tuple[str, Any]]
    demands: Mapping[str, object]
    harmless: str


def dense(ours: str, theirs: str, layout: Layout = TRANSPOSED) -> tuple[Row, ...]:
    return (
        Row((f"{ours}/kernel",), f"{theirs}.weight", layout),
        Row((f"{ours}/bias",), f"{theirs}.bias"),
    )


def norm(ours: str, theirs: str) -> tuple[Row, ...]:
    return Row((f"{ours}/scale",), f"{theirs}.weight"), Row((f"{ours}/bias",), f"{theirs}.bias")
