"""How a run learns: the finetune, optim and train sections."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxlm.config.schema import ConfigError, Derived, Section, filled, option, require


@dataclass(frozen=True)
class FinetuneConfig(Section):
    """What to start from, and which weights to train."""

    title: ClassVar[str] = "finetune"

    init_from: str | None = option(
        None,
        "a run, a checkpoint, or a Hugging Face directory or id whose model, weights and tokenizer "
        "to start from; null: a fresh model of the model section",
        "a text that is not empty",
    )
    random_init: bool = option(
        False, "use the model and tokenizer of init_from with random weights, for comparison"
    )
    dropout: float | None = option(None, "dropout rate; null: that of init_from", "in [0, 1)")
    freeze: tuple[str, ...] = option(
        (), "regexes: parameters whose path matches one are not trained"
    )
    train_last_layers: int | None = option(
        None, "train only the last N blocks and the layers after them; null: all", "positive"
    )
    layer_decay: float = option(
        1.0, "learning rate of a block, as a share of that of the block above it", "in (0, 1]"
    )
    lora_rank: int | None = option(
        None, "train LoRA adapters of this rank and freeze the weights of init_from", "positive"
    )
    lora_alpha: float = option(16.0, "adapters are scaled by alpha / rank", "positive")
    lora_targets: tuple[str, ...] = option(
        ("attention/(query|value)/",), "regexes: kernels whose path matches one get an adapter"
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("freeze", "lora_targets"):
            for pattern in getattr(self, name):
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ConfigError(
                        f"finetune.{name} {pattern!r} is not a regular expression: {error}"
                    ) from None
        require(
            self.lora_rank is None or bool(self.lora_targets),
            "finetune.lora_targets",
            "at least one regex with lora_rank",
            self.lora_targets,
        )
        for name in ("random_init", "lora_rank", "dropout"):
            value = getattr(self, name)
            require(
                value in (None, False) or self.init_from is not None,
                f"finetune.{name}",
                "left out without finetune.init_from",
                value,
            )


@dataclass(frozen=True)
class OptimConfig(Section):
    """The optimizer and its learning-rate schedule."""

    title: ClassVar[str] = "optim"

    name: Literal["adamw", "muon", "lion", "adafactor", "schedule_free"] = option(
        "adamw", "the optimizer"
    )
    learning_rate: float = option(1e-3, "peak learning rate (muon: of the matrices)", "at least 0")
    adam_learning_rate: Derived[float] = option(
        None,
        "peak learning rate of what muon leaves to Adam (embeddings, norms, head); null: a third "
        "of learning_rate",
        "at least 0",
    )
    schedule: Literal["cosine", "linear", "wsd", "constant", "inverse_sqrt"] = option(
        "cosine", "learning-rate schedule after the warm-up"
    )
    warmup_steps: int = option(100, "steps of linear warm-up", "at least 0")
    decay_fraction: float = option(0.2, "wsd: share of the steps in the final decay", "in [0, 1]")
    final_fraction: float = option(
        0.0, "learning rate at the end, as a share of the peak", "in [0, 1]"
    )
    weight_decay: float = option(0.1, "decoupled decay of kernels and embeddings", "at least 0")
    clip_norm: float | None = option(
        1.0, "global gradient norm to clip to; null: no clipping", "positive"
    )
    beta1: float = option(0.9, "decay of the first moment", "in [0, 1)")
    beta2: float = option(0.95, "decay of the second moment", "in [0, 1)")
    eps: float = option(1e-8, "Adam's epsilon", "positive")
    momentum: float = option(0.95, "muon: decay of the momentum", "in [0, 1)")
    ema_decay: float | None = option(
        None,
        "evaluate an exponential moving average of the weights, with this decay; null: the weights",
        "in (0, 1)",
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
        """The section with `adam_learning_rate` filled in."""
        return filled(self, adam_learning_rate=self.learning_rate / 3)


@dataclass(frozen=True)
class TrainConfig(Section):
    """How long to train, and how often to evaluate, save and log."""

    title: ClassVar[str] = "train"

    steps: int = option(2000, "optimizer steps", "positive")
    epochs: float | None = option(
        None, "passes over the training data, in place of steps; null: use steps", "positive"
    )
    batch_size: int = option(12, "windows or rows in one step", "positive")
    accumulate_steps: int = option(
        1, "micro-batches whose gradients are summed in one step", "positive"
    )
    eval_every: int = option(250, "steps between passes over the validation split", "positive")
    average_last: int | None = option(
        None,
        "evaluate and keep the mean of the weights at this many of the last evaluations; null: the "
        "weights as they are",
        "positive",
    )
    checkpoint_every: int = option(
        500, "steps between checkpoints of the last state", "positive", role="cadence"
    )
    log_every: int = option(10, "steps between rows of metrics.jsonl", "positive", role="cadence")
    log_norms: bool = option(
        False,
        "log the norms of each layer's parameters, gradients and updates too",
        role="cadence",
    )
    skip_spikes: float | None = option(
        None,
        "skip updates whose loss lies this many standard deviations, such as 6, above the mean of "
        "the last 128; null: only those that are no numbers",
        "positive",
    )
    rollback_after: int | None = option(
        3,
        "updates skipped in a row after which the run goes back to its last checkpoint and passes "
        "their batches over; null: never",
        "in [1, 1000]",
    )
    patience: int | None = option(
        None,
        "stop after this many evaluations without a better val loss; null: never",
        "positive",
    )
    profile: str | None = option(
        None,
        "write a trace of the steps from A to B, as in 10:20, to the run directory; null: none",
        role="cadence",
    )
    dry_run: bool = option(
        False,
        "do one step, evaluation, sample and checkpoint in a temporary folder, and say what the "
        "whole run takes",
        role="cadence",
    )
    deterministic: bool = option(
        False, "on a GPU, use kernels that give the same bits in every run"
    )

    def __post_init__(self):
        super().__post_init__()
        require(
            self.batch_size % self.accumulate_steps == 0,
            "train.accumulate_steps",
            f"a divisor of batch_size ({self.batch_size})",
            self.accumulate_steps,
        )
        if self.profile is not None:
            found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", self.profile, re.ASCII)
            good = found is not None and int(found[1]) < int(found[2])
            rule = "two steps, the first below the second, such as 10:20"
            require(good, "train.profile", rule, self.profile)
