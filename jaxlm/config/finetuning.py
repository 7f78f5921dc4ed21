"""The settings of fine-tuning: what to start from, what to learn, and which weights to train."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from jaxlm.config.rules import ConfigError, check, require

# Tasks whose data are rows or dialogues, and those that train on running text.
ROW_TASKS = ("sequence_classification", "token_classification", "question_answering", "chat")
TEXT_TASKS = {"causal_lm": "clm", "masked_lm": "mlm"}


@dataclass(frozen=True)
class FinetuneConfig:
    """What to start from, what to learn, and which weights to train."""

    init_from: Annotated[
        str | None,
        "a run, a checkpoint, or a Hugging Face directory or id whose model, weights and tokenizer "
        "to start from; null: a fresh model of the model section",
    ] = None
    task: Annotated[
        Literal[
            "sequence_classification",
            "token_classification",
            "question_answering",
            "causal_lm",
            "masked_lm",
            "chat",
        ]
        | None,
        "what to learn; null: what objective.name says, on running text",
    ] = None
    random_init: Annotated[
        bool, "take the model and tokenizer of init_from, but not its weights: for comparison"
    ] = False
    dropout: Annotated[float | None, "dropout rate; null: that of init_from"] = None
    train_rows: Annotated[int | None, "learn from no more rows than this; null: from all"] = None
    metric: Annotated[
        str | None, "what the best checkpoint has most of, or loss; null: the task's first metric"
    ] = None
    class_weights: Annotated[
        Literal["none", "balanced"], "balanced: rare classes count as much as frequent ones"
    ] = "none"
    stride: Annotated[
        int, "question_answering: tokens that neighbouring windows of a long context share"
    ] = 64
    max_answer_tokens: Annotated[int, "question_answering: the longest answer to give"] = 30
    freeze: Annotated[tuple[str, ...], "regexes: parameters whose path one finds stay as are"] = ()
    train_last_layers: Annotated[
        int | None, "train the last N blocks and what comes after them; null: all"
    ] = None
    layer_decay: Annotated[
        float, "each block learns at this share of the rate of the block above it"
    ] = 1.0
    lora_rank: Annotated[
        int | None, "train low-rank adapters of this rank in place of what init_from brought"
    ] = None
    lora_alpha: Annotated[float, "adapters count alpha / rank times"] = 16.0
    lora_targets: Annotated[
        tuple[str, ...], "regexes: kernels whose path one finds get an adapter"
    ] = ("attention/(query|value)/",)

    def __post_init__(self):
        check(self, "finetune", "positive", "train_rows", "train_last_layers", "lora_rank")
        check(self, "finetune", "positive", "lora_alpha", "max_answer_tokens")
        check(self, "finetune", "at least 0", "stride")
        check(self, "finetune", "in [0, 1)", "dropout")
        check(self, "finetune", "in (0, 1]", "layer_decay")
        check(self, "finetune", "a text that is not empty", "init_from", "metric")
        for name in ("freeze", "lora_targets"):
            for pattern in getattr(self, name):
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ConfigError(
                        f"finetune.{name} {pattern!r} is no regular expression: {error}"
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

    @property
    def on_rows(self) -> bool:
        """Whether the data are rows of columns, not running text."""
        return self.task in ROW_TASKS
