"""The parts of a family's conversion table: which tensor fills which params, in what layout.

"Theirs" are names and configs of Hugging Face's, "ours" those of jaxlm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxlm.config.model import POOLED_HEADS

NO_MARK = r"(?!)"  # a pattern that matches nothing
REQUIRED = object()  # in place of a default: their config must have the attribute


@dataclass(frozen=True)
class Layout:
    """A named change of layout: one tensor of theirs into leaves of ours, and back."""

    name: str
    read: Callable[[np.ndarray], Sequence[np.ndarray]]
    write: Callable[[Sequence[np.ndarray]], np.ndarray]


SAME = Layout("same", lambda tensor: [tensor], lambda leaves: leaves[0])
# A row in a matrix of its own, such as (1, V).
ROW = Layout("a row", lambda tensor: list(tensor), lambda leaves: np.stack(leaves))
# The weight of a torch.nn.Linear is (out, in), our kernels are (in, out).
TRANSPOSED = Layout("transposed", lambda tensor: [tensor.T], lambda leaves: leaves[0].T)
# Uneven thirds do not raise here: shapes are compared with the model's afterwards.
THIRDS = Layout(
    "thirds of the last dim",
    lambda tensor: np.array_split(np.atleast_1d(tensor), 3, axis=-1),
    lambda leaves: np.concatenate(leaves, axis=-1),
)


@dataclass(frozen=True)
class TensorRow:
    """Leaves of ours and the one tensor of theirs that holds them; `{i}` stands for the layer.

    It applies where our params have these leaves, if it names heads, the model has one of them, and
    `when` gives a field of the config and its value, this holds.
    """

    ours: tuple[str, ...]
    theirs: str
    layout: Layout = SAME
    heads: tuple[str, ...] = ()
    when: tuple[str, Any] | None = None

    def at(self, layer: int) -> "TensorRow":
        ours = tuple(path.format(i=layer) for path in self.ours)
        return TensorRow(ours, self.theirs.format(i=layer), self.layout, self.heads, self.when)


@dataclass(frozen=True)
class Ignored:
    """Tensors of theirs, by regular expression, that need not be read, and why."""

    pattern: str
    reason: str
    same_as: str | tuple[str, ...] = ()  # only if it equals the first of these that is there
    heads: tuple[str, ...] = ()  # only in models with one of these; () means all


@dataclass(frozen=True)
class Family:
    """How the tensors and the config of one model family convert, in both directions.

    Tensors: `prefix` begins their names, except in the class without a head; `rows` and `ignored`
    cover all of them; a tensor that `mark` finds is in this family and in none after it in the list
    of families. Model: `heads` maps a head of ours to their class; `structure` holds the
    ModelConfig fields that make the family (None: the derived value), `pooled_heads` those with a
    pooler in an encoder, and fields named nowhere here have their defaults. Config: `fields` maps a
    field of ours to their attribute and its default; `dropout` lists the attributes that equal our
    one rate; `same` maps further attributes to the field that they must equal, and `fallback` a
    field to the one whose value it has where it is null; `demands` gives attributes that must have
    this value; `harmless` names attributes that do not change the model's outputs.
    """

    name: str
    prefix: str
    mark: str
    heads: Mapping[str, str]
    rows: tuple[TensorRow, ...]
    ignored: tuple[Ignored, ...]
    structure: Mapping[str, Any]
    fields: Mapping[str, tuple[str, Any]]
    dropout: tuple[str, ...]
    demands: Mapping[str, object]
    harmless: str
    # The default of sliding_window, where there is one; a switch: only if use_sliding_window.
    window: int | None = None
    window_switch: bool = False
    # Positions are counted from the row after the padding id, which by default is this.
    first_pad_id: int | None = None
    pooled_heads: tuple[str, ...] = POOLED_HEADS
    same: Mapping[str, str] = MappingProxyType({})
    fallback: Mapping[str, str] = MappingProxyType({})
    # Whether their limit of positions counts the rows before that of the first token.
    limit_has_offset: bool = True
    # What decoding does where their files do not say it.
    generation: Mapping[str, Any] = MappingProxyType({})


def dense(
    ours: str, theirs: str, layout: Layout = TRANSPOSED, heads: tuple[str, ...] = ()
) -> tuple[TensorRow, ...]:
    return (
        TensorRow((f"{ours}/kernel",), f"{theirs}.weight", layout, heads),
        TensorRow((f"{ours}/bias",), f"{theirs}.bias", SAME, heads),
    )


def norm(ours: str, theirs: str) -> tuple[TensorRow, ...]:
    return TensorRow((f"{ours}/scale",), f"{theirs}.weight"), TensorRow(
        (f"{ours}/bias",), f"{theirs}.bias"
    )
