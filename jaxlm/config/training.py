"""The optim and train sections: the update rule, how long to train, and what to do on the way."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxlm.config.schema import Derived, Section, filled, option, require


@dataclass(frozen=True)
class OptimConfig(Section):
    """The update rule and the course of its learning rate."""

    title: ClassVar[str] = "optim"

    name: Literal["adamw", "muon", "lion", "adafactor", "schedule_free"] = option(
        "adamw", "the update rule"
    )
    learning_rate: float = option(1e-3, "peak learning rate (muon: of the matrices)", "at least 0")
    adam_learning_rate: Derived[float] = option(
        None,
        "peak rate of what muon leaves to Adam (embeddings, norms, head); null: a third",
        "at least 0",
    )
    schedule: Literal["cosine", "linear", "wsd", "constant", "inverse_sqrt"] = option(
        "cosine", "course after the warm-up"
    )
    warmup_steps: int = option(100, "steps of linear warm-up", "at least 0")
    decay_fraction: float = option(
        0.2, "wsd: share of all steps that the final decay takes", "in [0, 1]"
    )
    final_fraction: float = option(
        0.0, "learning rate at the end, as a share of the peak", "in [0, 1]"
    )
    weight_decay: float = option(0.1, "decoupled decay of kernels and embeddings", "at least 0")
    clip_norm: float | None = option(
        1.0, "global gradient norm to clip to; null: no clipping", "positive"
    )
    beta1: float = option(0.9, "decay of the first moment", "in [0, 1)")
    beta2: float = option(0.95, "decay of the second moment", "in [0, 1)")
    eps: float = option(1e-8, "Adam's epsilon", "at least 0")
    momentum: float = option(0.95, "muon: decay of the momentum", "in [0, 1)")
    ema_decay: float | None = option(
        None, "evaluate an exponential moving average of weights", "in (0, 1)"
    )

    def __post_init__(self):
        super().__post_init__()
        require(
            self.ema_decay is None or self.name != "schedule_free",
            "optim.ema_decay",
            "null with schedule_free, which averages the weights itself",
            self.ema_decay,
        )

    def resolved(self) -> "OptimConfig":
        """The section with the rate of Muon's Adam filled in."""
        return filled(self, adam_learning_rate=self.learning_rate / 3)


@dataclass(frozen=True)
class TrainConfig(Section):
    """How long to train, and what to do on the way."""

    title: ClassVar[str] = "train"

    steps: int = option(2000, "updates to make", "positive")
    epochs: float | None = option(
        None, "passes over the data to make, in place of steps; null: as steps says", "positive"
    )
    batch_size: int = option(12, "windows in one update", "positive")
    accumulate_steps: int = option(1, "micro-batches that one update is summed over", "positive")
    eval_every: int = option(250, "steps between passes over the validation split", "positive")
    checkpoint_every: int = option(
        500, "steps between checkpoints of the last state", "positive", role="cadence"
    )
    log_every: int = option(10, "steps between rows of metrics.jsonl", "positive", role="cadence")
    patience: int | None = option(
        None,
        "stop after this many evaluations without a better val loss; null: never",
        "positive",
    )
    deterministic: bool = option(False, "on a GPU, choose kernels that repeat bit for bit")

    def __post_init__(self):
        super().__post_init__()
        require(
            self.batch_size % self.accumulate_steps == 0,
            "train.accumulate_steps",
            f"a divisor of batch_size ({self.batch_size})",
            self.accumulate_steps,
        )
