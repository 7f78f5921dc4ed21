"""What a run learns: the task section."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxlm.config.schema import Section, option, require

ROW_TASKS = (
    "seq2seq",
    "sequence_classification",
    "token_classification",
    "question_answering",
    "chat",
)


@dataclass(frozen=True)
class TaskConfig(Section):
    """What a run learns, with the options of that task."""

    title: ClassVar[str] = "task"

    name: Literal[
        "causal_lm",
        "masked_lm",
        "span_corruption",
        "seq2seq",
        "sequence_classification",
        "token_classification",
        "question_answering",
        "chat",
        "own",
    ] = option(
        "causal_lm",
        "causal_lm: the next token; masked_lm: hidden tokens; span_corruption: what stood in gaps; "
        "the others learn from rows; own: the task object given to fit",
        role="structure",
    )
    mask_fraction: float = option(
        0.15,
        "share of the tokens to hide and predict",
        "in (0, 1)",
        tasks=("masked_lm", "span_corruption"),
    )
    mean_span: float = option(
        3.0, "tokens that a gap takes in the mean", "at least 1", tasks=("span_corruption",)
    )
    mask_share: float = option(
        0.8, "share of the hidden tokens shown as [MASK]", "in [0, 1]", tasks=("masked_lm",)
    )
    random_share: float = option(
        0.1, "share of the hidden tokens shown as a random token", "in [0, 1]", tasks=("masked_lm",)
    )
    masking: Literal["token", "word", "span"] = option(
        "token", "hide single tokens, whole words or spans of words", tasks=("masked_lm",)
    )
    segmenter: Literal["none", "jieba"] = option(
        "none",
        "splits Chinese text into words; none: every character is one",
        tasks=("masked_lm",),
    )
    label_smoothing: float = option(
        0.0,
        "share of the weight of a right token that is spread over all tokens",
        "in [0, 1)",
        tasks=("causal_lm", "masked_lm", "seq2seq"),
    )
    z_loss: float = option(
        0.0,
        "weight of the squared log of the softmax's denominator in the loss, such as 1e-4",
        "at least 0",
        tasks=("causal_lm", "masked_lm"),
    )
    batch_tokens: int | None = option(
        None,
        "tokens of one update, sources, targets and padding together; null: as many as "
        "train.batch_size pairs have",
        "positive",
        tasks=("seq2seq",),
    )
    eval_rows: int = option(
        200,
        "rows held out to write the targets of at each evaluation, for BLEU and the like; 0: none",
        "at least 0",
        tasks=("seq2seq",),
    )
    num_beams: int = option(1, "beams that these are written with", "positive", tasks=("seq2seq",))
    train_rows: int | None = option(
        None, "train on at most this many rows; null: all", "positive", tasks=ROW_TASKS
    )
    metric: str | None = option(
        None,
        "the metric that selects the best checkpoint, or loss; null: the task's first metric",
        "a text that is not empty",
        tasks=ROW_TASKS,
    )
    class_weights: Literal["none", "balanced"] = option(
        "none",
        "balanced: rare classes count as much as frequent ones",
        tasks=("sequence_classification", "token_classification"),
    )
    stride: int = option(
        64,
        "overlap, in tokens, of the windows that a long context is split into",
        "at least 0",
        tasks=("question_answering",),
    )
    max_answer_tokens: int = option(
        30, "length of the longest answer", "positive", tasks=("question_answering",)
    )

    def __post_init__(self):
        super().__post_init__()
        require(
            self.mask_share + self.random_share <= 1,
            "task.random_share",
            f"at most 1 - mask_share ({1 - self.mask_share:.3g})",
            self.random_share,
        )

    @property
    def on_rows(self) -> bool:
        """Whether the data are rows with named columns instead of running text."""
        return self.name in ROW_TASKS
