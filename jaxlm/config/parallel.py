"""The processes and devices of a run, and what it divides over them: the parallel section."""

from dataclasses import dataclass
from typing import ClassVar

from jaxlm.config.schema import Section, option, require


@dataclass(frozen=True)
class ParallelConfig(Section):
    """The devices of a run as a mesh of three axes, on which the results do not depend.

    The other fields name the processes of the run, where there are several and JAX does not find
    them out.
    """

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

    coordinator: str | None = option(
        None,
        "host:port of the first of several processes; null: as the environment says",
        "a text that is not empty",
        role="place",
    )
    num_processes: int | None = option(
        None, "processes of the run; null: as the environment says", "positive", role="place"
    )
    process_id: int | None = option(
        None, "which of them this is; null: as the environment says", "at least 0", role="place"
    )

    def __post_init__(self):
        super().__post_init__()
        sizes = self.sizes
        require(sizes.count(-1) <= 1, "parallel", "sizes of which one at most is -1", list(sizes))

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The sizes of the mesh's axes, as given."""
        return self.data, self.fsdp, self.tensor
