"""What a family's table is made of: rows of paths with their layout, and what is left out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

REQUIRED = object()  # in place of a default: their config must give the attribute

# Names and ids, how to run and to return, and what only training sees.
HARMLESS = (
    "_name_or_path architectures auto_map bos_token_id chunk_size_feed_forward "
    "classifier_dropout dtype eos_token_id gradient_checkpointing id2label initializer_range "
    "label2id model_type num_labels output_attentions output_hidden_states output_past "
    "pad_token_id problem_type return_dict sep_token_id task_specific_params tokenizer_class "
    "torch_dtype transformers_version use_cache "
)


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
    """Leaves of ours and the one tensor of theirs that holds them; `{i}` stands for the layer.

    A row applies when our tree has its leaves and, where it names heads, the model one of them.
    """

    ours: tuple[str, ...]
    theirs: str
    layout: Layout = SAME
    heads: tuple[str, ...] = ()

    def at(self, layer: int) -> "Row":
        ours = tuple(path.format(i=layer) for path in self.ours)
        return Row(ours, self.theirs.format(i=layer), self.layout, self.heads)


@dataclass(frozen=True)
class Ignored:
    """Tensors of theirs, by regular expression, that we need not read, and why."""

    pattern: str
    reason: str
    same_as: str | None = None  # and only as long as it equals this tensor
    heads: tuple[str, ...] = ()  # and only in models of these


@dataclass(frozen=True)
class Family:
    """How one family of theirs is written in our words, tensors and config alike.

    `heads` gives their class for a head of ours; `prefix` is what their tensor names begin with,
    but in a class without a head. `structure` holds the fields of ours that make the family, None
    being the derived value; every field that is named nowhere here has its default. The rest is
    their config: `fields` gives for a field of ours their attribute and its default, `dropout`
    those that are our one rate, `demands` the attributes that must have one value (a list:
    throughout), `harmless` the names of those that do not change what the model computes.
    """

    name: str
    prefix: str
    heads: Mapping[str, str]
    rows: tuple[Row, ...]
    ignored: tuple[Ignored, ...]
    structure: Mapping[str, Any]
    fields: Mapping[str, tuple[str, Any]]
    dropout: tuple[str, ...]
    demands: Mapping[str, object]
    harmless: str


def dense(
    ours: str, theirs: str, layout: Layout = TRANSPOSED, heads: tuple[str, ...] = ()
) -> tuple[Row, ...]:
    return (
        Row((f"{ours}/kernel",), f"{theirs}.weight", layout, heads),
        Row((f"{ours}/bias",), f"{theirs}.bias", SAME, heads),
    )


def norm(ours: str, theirs: str) -> tuple[Row, ...]:
    return Row((f"{ours}/scale",), f"{theirs}.weight"), Row((f"{ours}/bias",), f"{theirs}.bias")
