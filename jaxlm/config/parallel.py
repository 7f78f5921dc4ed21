"""How many devices a run takes, and what it divides over them: the parallel section."""

from dataclasses import astuple, dataclass
from typing import ClassVar

from jaxlm.config.schema import Section, option, require


@dataclass(frozen=True)
class ParallelConfig(Section):
    """The devices of a run as a mesh of three axes; the results do not depend on it."""

    title: ClassVar[str] = "parallel"

    data: int = option(
        -1,
        "devices among which the rows of a batch are divided; -1: all that the others leave",
        "positive or -1",
        role="place",
    )
    fsdp: int = option(
        1,
        "devices among which rows, weights and the state of the optimizer are divided; -1: as data",
        "positive or -1",
        role="place",
    )
    tensor: int = option(
        1,
        "devices among which heads, feed-forward units and the vocabulary are divided; -1: as data",
        "positive or -1",
        role="place",
    )

    def __post_init__(self):
        super().__post_init__()
        free = astuple(self).count(-1)
        require(free <= 1, "parallel", "sizes of which one at most is -1", list(astuple(self)))
