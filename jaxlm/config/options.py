"""The settings of a run as frozen dataclasses, each field with its default and its meaning."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Literal

from jaxlm.config.finetuning import TEXT_TASKS, FinetuneConfig
from jaxlm.config.model import ModelConfig
from jaxlm.config.rules import DERIVED, Derived, check, fill, filled, require

COLUMNS = ("text_column", "pair_column", "label_column")
TEXT_COLUMN = "text"
# The usual names of a task's columns, in that order.
TASK_COLUMNS = {
    "sequence_classification": (TEXT_COLUMN, None, "label"),
    "token_classification": ("tokens", None, "tags"),
    "question_answering": ("question", "context", "answers"),
    "chat": ("turns", None, None),
}


@dataclass(frozen=True)
class RunConfig:
    """Where the run is kept and how it starts."""

    name: Annotated[Derived[str], "name of the run; null: the config file's stem"] = DERIVED
    dir: Annotated[Derived[str], "the run directory; null: runs/<run.name>"] = DERIVED
    seed: Annotated[int, "initial weights, data order and dropout each derive a key from it"] = 0
    resume: Annotated[
        Literal["never", "auto", "must"],
        "never: refuse to continue what run.dir holds; auto: continue it; must: insist on that",
    ] = "auto"
    overwrite: Annotated[bool, "delete what run.dir holds and start anew"] = False

    def __post_init__(self):
        check(self, "run", "in [0, 2**32)", "seed")
        check(self, "run", "a text that is not empty", "name", "dir")


@dataclass(frozen=True)
class DataConfig:
    """From text to batches of tokens."""

    source: Annotated[
        str,
        "a file, folder or glob (txt, jsonl, csv, tsv, parquet), sample:NAME, hf:NAME; a + b: both",
    ] = "sample:tinyshakespeare"
    text_column: Annotated[
        Derived[str], "the column of a row's text; null: text, tokens, question or turns, by task"
    ] = DERIVED
    pair_column: Annotated[
        str | None, "the column of a second text; null: context for question_answering, else none"
    ] = None
    label_column: Annotated[
        Derived[str], "the column of what is to be learned; null: label, tags or answers, by task"
    ] = DERIVED
    hf_config: Annotated[str | None, "configuration of an hf: data set"] = None
    hf_split: Annotated[str, "split of an hf: data set"] = "train"
    val_source: Annotated[
        str | None, "labelled rows to validate on, as source; null: a share of source"
    ] = None
    hf_val_split: Annotated[str, "split of an hf: data set in val_source"] = "validation"
    max_documents: Annotated[int | None, "read no more rows than this"] = None
    normalize: Annotated[Literal["none", "NFC", "NFKC"], "Unicode normal form of the text"] = "none"
    tokenizer: Annotated[
        str, "char, bpe, wordpiece or unigram, trained on the text; or a tokenizer's file or folder"
    ] = "char"
    vocab_size: Annotated[int, "size of a bpe, wordpiece or unigram vocabulary to train"] = 4096
    val_fraction: Annotated[float, "share of the text held out for validation; 0: none"] = 0.1
    test_fraction: Annotated[
        float, "share of labelled rows to test the best checkpoint on at the end; 0: none"
    ] = 0.0
    seq_len: Annotated[int, "tokens a training window holds"] = 64
    special_tokens: Annotated[
        Derived[Literal["none", "cls_sep"]],
        "cls_sep: a trained vocabulary begins with [PAD] [UNK] [CLS] [SEP] [MASK]; null: where "
        "needed",
    ] = DERIVED
    mask_documents: Annotated[
        bool, "attention and positions start anew at each document; mlm: a row holds but one"
    ] = False

    def __post_init__(self):
        check(self, "data", "positive", "seq_len", "vocab_size", "max_documents")
        check(self, "data", "in [0, 1)", "val_fraction", "test_fraction")
        check(self, "data", "a text that is not empty", "source", "tokenizer", "val_source")
        check(self, "data", "a text that is not empty", *COLUMNS)
        require(
            self.val_fraction + self.test_fraction < 1,
            "data.test_fraction",
            f"below 1 - val_fraction ({1 - self.val_fraction:.3g})",
            self.test_fraction,
        )


@dataclass(frozen=True)
class ObjectiveConfig:
    """What the model learns to predict."""

    name: Annotated[
        Literal["clm", "mlm"], "clm: predict the next token; mlm: guess masked tokens"
    ] = "clm"
    mask_fraction: Annotated[float, "mlm: share of a row's tokens to guess"] = 0.15
    mask_share: Annotated[float, "mlm: of those, the share that the mask token hides"] = 0.8
    random_share: Annotated[float, "mlm: of those, the share shown as any token"] = 0.1
    masking: Annotated[
        Literal["token", "word", "span"], "mlm: hide single tokens, whole words or runs of words"
    ] = "token"
    segmenter: Annotated[
        Literal["none", "jieba"], "mlm: what tells Chinese words apart; none: every character"
    ] = "none"

    def __post_init__(self):
        check(self, "objective", "in (0, 1)", "mask_fraction")
        check(self, "objective", "in [0, 1]", "mask_share", "random_share")
        require(
            self.mask_share + self.random_share <= 1,
            "objective.random_share",
            f"at most 1 - mask_share ({1 - self.mask_share:.3g})",
            self.random_share,
        )


@dataclass(frozen=True)
class OptimConfig:
    """The update rule and the course of its learning rate."""

    name: Annotated[
        Literal["adamw", "muon", "lion", "adafactor", "schedule_free"], "the update rule"
    ] = "adamw"
    learning_rate: Annotated[float, "peak learning rate (muon: of the matrices)"] = 1e-3
    adam_learning_rate: Annotated[
        Derived[float],
        "peak rate of what muon leaves to Adam (embeddings, norms, head); null: a third",
    ] = DERIVED
    schedule: Annotated[
        Literal["cosine", "linear", "wsd", "constant", "inverse_sqrt"], "course after the warm-up"
    ] = "cosine"
    warmup_steps: Annotated[int, "steps of linear warm-up"] = 100
    decay_fraction: Annotated[float, "wsd: share of all steps that the final decay takes"] = 0.2
    final_fraction: Annotated[float, "learning rate at the end, as a share of the peak"] = 0.0
    weight_decay: Annotated[float, "decoupled decay of kernels and embeddings"] = 0.1
    clip_norm: Annotated[float | None, "global gradient norm to clip to; null: no clipping"] = 1.0
    beta1: Annotated[float, "decay of the first moment"] = 0.9
    beta2: Annotated[float, "decay of the second moment"] = 0.95
    eps: Annotated[float, "Adam's epsilon"] = 1e-8
    momentum: Annotated[float, "muon: decay of the momentum"] = 0.95
    ema_decay: Annotated[float | None, "evaluate an exponential moving average of weights"] = None

    def __post_init__(self):
        fill(self, adam_learning_rate=self.learning_rate / 3)
        check(self, "optim", "at least 0", "learning_rate", "adam_learning_rate", "eps")
        check(self, "optim", "at least 0", "warmup_steps", "weight_decay")
        check(self, "optim", "in [0, 1)", "beta1", "beta2", "momentum")
        check(self, "optim", "in [0, 1]", "decay_fraction", "final_fraction")
        check(self, "optim", "in (0, 1)", "ema_decay")
        check(self, "optim", "positive", "clip_norm")
        require(
            self.ema_decay is None or self.name != "schedule_free",
            "optim.ema_decay",
            "null with schedule_free, which averages the weights itself",
            self.ema_decay,
        )


@dataclass(frozen=True)
class TrainConfig:
    """How long to train, and what to do on the way."""

    steps: Annotated[int, "updates to make"] = 2000
    epochs: Annotated[float | None, "passes over the data to make; null: as steps says"] = None
    batch_size: Annotated[int, "windows in one update"] = 12
    accumulate_steps: Annotated[int, "micro-batches that one update is summed over"] = 1
    eval_every: Annotated[int, "steps between passes over the validation split"] = 250
    checkpoint_every: Annotated[int, "steps between checkpoints of the last state"] = 500
    log_every: Annotated[int, "steps between rows of metrics.jsonl"] = 10
    patience: Annotated[
        int | None, "stop after this many evaluations without a better val loss; null: never"
    ] = None
    deterministic: Annotated[bool, "on a GPU, choose kernels that repeat bit for bit"] = False

    def __post_init__(self):
        check(self, "train", "positive", "steps", "batch_size", "accumulate_steps", "patience")
        check(self, "train", "positive", "eval_every", "checkpoint_every", "log_every", "epochs")
        require(
            self.batch_size % self.accumulate_steps == 0,
            "train.accumulate_steps",
            f"a divisor of batch_size ({self.batch_size})",
            self.accumulate_steps,
        )


@dataclass(frozen=True)
class SampleConfig:
    """Text that the model writes while it trains."""

    prompts: Annotated[tuple[str, ...] | None, "texts to continue; null: start of a text"] = None
    every: Annotated[Derived[int], "steps between samples; null: eval_every; 0: none"] = DERIVED
    max_new_tokens: Annotated[int, "tokens to sample"] = 128
    temperature: Annotated[float, "0 is greedy"] = 0.8
    top_k: Annotated[int | None, "sample among the k likeliest tokens; null: all"] = 40
    top_p: Annotated[float | None, "sample from the likeliest share of probability"] = None

    def __post_init__(self):
        check(self, "sample", "at least 0", "every", "temperature")
        check(self, "sample", "positive", "max_new_tokens", "top_k")
        check(self, "sample", "in (0, 1]", "top_p")
        require(self.prompts != (), "sample.prompts", "at least one text or null", [])


@dataclass(frozen=True)
class Config:
    """One run, whole: what `python train.py` reads and what a run directory records."""

    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)

    def __post_init__(self):
        name = self.run.name or "run"
        run = filled(self.run, name=name, dir=f"runs/{name}")
        sample = filled(self.sample, every=self.train.eval_every)
        model, task = self.model, self.finetune.task
        if self.finetune.init_from is None:
            model = filled(model, max_seq_len=self.data.seq_len)
        objective = self.objective
        if task in TEXT_TASKS:
            objective = dataclasses.replace(objective, name=TEXT_TASKS[task])
        columns = TASK_COLUMNS.get(task or "", (TEXT_COLUMN, None, None))
        data = filled(self.data, **dict(zip(COLUMNS, columns, strict=True)))
        sections = {"run": run, "sample": sample, "model": model}
        sections |= {"objective": objective, "data": data}
        for section, value in sections.items():
            object.__setattr__(self, section, value)
        require(
            self.finetune.layer_decay == 1 or self.optim.name != "schedule_free",
            "finetune.layer_decay",
            "1 with schedule_free, whose averages depend on the rate",
            self.finetune.layer_decay,
        )
        one_label = task == "sequence_classification" and self.model.problem == "single_label"
        require(
            self.finetune.class_weights == "none" or one_label or task == "token_classification",
            "finetune.class_weights",
            f"none for {task} with model.problem {self.model.problem}",
            self.finetune.class_weights,
        )
        limit = self.model.max_seq_len
        if limit is None:
            return  # finetune.init_from tells
        require(
            self.data.seq_len <= limit,
            "data.seq_len",
            f"at most model.max_seq_len ({limit})",
            self.data.seq_len,
        )
