"""The config of a run: its sections, derived fields, and checks between fields."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from jaxlm.config.learning import FinetuneConfig, OptimConfig, TrainConfig
from jaxlm.config.model import ModelConfig
from jaxlm.config.parallel import ParallelConfig
from jaxlm.config.schema import ConfigError, Derived, Section, filled, not_among, option, require
from jaxlm.config.task import TaskConfig


@dataclass(frozen=True)
class RunConfig(Section):
    """Where the run is kept and how it starts."""

    title: ClassVar[str] = "run"

    name: Derived[str] = option(
        None, "name of the run; null: the config file's stem", "a text that is not empty"
    )
    dir: Derived[str] = option(
        None, "the run directory; null: runs/<run.name>", "a text that is not empty", role="place"
    )
    seed: int = option(
        0,
        "initial weights, data order and dropout each derive a key from it",
        "in [0, 2**32)",
    )
    resume: Literal["never", "auto", "must"] = option(
        "auto",
        "if run.dir holds a run: never: refuse; auto: continue it; must: continue it, and "
        "refuse if there is none",
        role="place",
    )
    overwrite: bool = option(False, "delete the run in run.dir and start over", role="place")
    loggers: tuple[str, ...] = option(
        (),
        "where rows of metrics go besides metrics.jsonl: tensorboard, wandb, trackio",
        role="cadence",
    )
    own: tuple[str, ...] = option(
        (), "names of the objects given to fit, such as an objective; recorded by the run"
    )

    def __post_init__(self):
        super().__post_init__()
        known = ("tensorboard", "wandb", "trackio")
        for name in self.loggers:
            if name not in known:
                raise not_among("run.loggers", name, known)


@dataclass(frozen=True)
class DataConfig(Section):
    """From text to batches of tokens."""

    title: ClassVar[str] = "data"

    source: str = option(
        "sample:tinyshakespeare",
        "a file, folder or glob (txt, md, html, json, jsonl, csv, tsv, parquet, conll, conllu), "
        "parallel texts as x.{en,zh}, sample:NAME, hf:NAME, toy:NAME; a + b: both, or where rows "
        "are needed two text files side by side",
        "a text that is not empty",
    )
    text_column: Derived[str] = option(
        None,
        "the column of a row's text; null: text, source, tokens, question or turns, by task",
        "a text that is not empty",
        filled_by="task",
    )
    pair_column: str | None = option(
        None,
        "the column of a second text; null: context for question_answering, else none",
        "a text that is not empty",
        filled_by="task",
    )
    label_column: Derived[str] = option(
        None,
        "the column of what is to be learned; null: label, target, tags or answers, by task",
        "a text that is not empty",
        filled_by="task",
    )
    columns: tuple[str, ...] = option(
        (), "names of the columns of CSV and TSV files without a header; []: the first row's"
    )
    hf_config: str | None = option(None, "configuration of an hf: data set")
    hf_split: str = option("train", "split of an hf: data set")
    val_source: str | None = option(
        None,
        "labelled rows to validate on, given like source; null: val_fraction of source",
        "a text that is not empty",
    )
    hf_val_split: str = option("validation", "split of an hf: data set in val_source")
    max_documents: int | None = option(None, "read at most this many documents or rows", "positive")
    duplicates: Literal["group", "keep", "drop"] = option(
        "group",
        "rows with the same text: group: keep them all on one side of a split; keep: split them "
        "like any other; drop: keep only the first",
    )
    skip_unreadable: bool = option(False, "skip files that cannot be read, and report them")
    normalize: Literal["none", "NFC", "NFKC"] = option("none", "Unicode normal form of the text")
    tokenizer: str = option(
        "char",
        "char, bpe, wordpiece or unigram, trained on the text; or a tokenizer's file or folder",
        "a text that is not empty",
    )
    source_tokenizer: str | None = option(
        None,
        "as tokenizer, for the sources of pairs alone; null: one for both sides",
        "a text that is not empty",
    )
    vocab_size: int = option(
        4096, "size of a bpe, wordpiece or unigram vocabulary to train", "in [1, 10**7]"
    )
    val_fraction: float = option(
        0.1, "share of the text held out for validation; 0: none", "in [0, 1)"
    )
    test_fraction: float = option(
        0.0,
        "share of labelled rows to test the best checkpoint on at the end; 0: none",
        "in [0, 1)",
    )
    seq_len: int = option(64, "tokens in a training window", "positive")
    special_tokens: Derived[Literal["none", "cls_sep", "bos_eos"]] = option(
        None,
        "cls_sep: a trained vocabulary begins with [PAD] [UNK] [CLS] [SEP] [MASK]; bos_eos: with "
        "<pad> </s> <s> <unk>; null: what the task needs",
        filled_by="task",
    )
    mask_documents: bool = option(
        False,
        "attention and positions restart at each document; masked_lm: a window holds one document",
    )

    def __post_init__(self):
        super().__post_init__()
        require(
            self.val_fraction + self.test_fraction < 1,
            "data.test_fraction",
            f"below 1 - val_fraction ({1 - self.val_fraction:.3g})",
            self.test_fraction,
        )


@dataclass(frozen=True)
class SampleConfig(Section):
    """Text that the model writes while it trains."""

    title: ClassVar[str] = "sample"

    prompts: tuple[str, ...] | None = option(
        None, "texts to continue; null: the start of a text", role="cadence"
    )
    every: Derived[int] = option(
        None,
        "steps between samples; null: eval_every; 0: none",
        "at least 0",
        role="cadence",
    )
    max_new_tokens: int = option(128, "tokens to sample", "positive", role="cadence")
    temperature: float = option(0.8, "0 is greedy", "at least 0", role="cadence")
    top_k: int | None = option(
        40, "sample among the k likeliest tokens; null: all", "positive", role="cadence"
    )
    top_p: float | None = option(
        None,
        "sample from the likeliest tokens that have this probability together",
        "in (0, 1]",
        role="cadence",
    )

    def __post_init__(self):
        super().__post_init__()
        require(self.prompts != (), "sample.prompts", "at least one text or null", [])


@dataclass(frozen=True)
class Config:
    """The config of one run, as written.

    Training uses, and a run directory records, `resolved()`. `written` holds the keys, such as
    model.d_model, that a file or the command line set.
    """

    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    written: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    def __post_init__(self):
        self._refuse_foreign_options()
        require(
            self.finetune.layer_decay == 1 or self.optim.name != "schedule_free",
            "finetune.layer_decay",
            "1 with schedule_free, whose averages depend on the rate",
            self.finetune.layer_decay,
        )
        averaged = self.optim.ema_decay is not None or self.optim.name == "schedule_free"
        require(
            self.train.average_last is None or not averaged,
            "train.average_last",
            "null with optim.ema_decay or schedule_free, which average the weights themselves",
            self.train.average_last,
        )
        of_sequences = self.task.name == "sequence_classification"
        require(
            self.task.class_weights == "none"
            or not of_sequences
            or self.model.problem == "single_label",
            "task.class_weights",
            f"none with model.problem {self.model.problem}",
            self.task.class_weights,
        )
        require(
            self.optim.warmup_steps <= self.train.steps
            or self.train.epochs is not None
            or not self.gives("optim", "warmup_steps"),
            "optim.warmup_steps",
            f"at most train.steps ({self.train.steps})",
            self.optim.warmup_steps,
        )
        if self.finetune.init_from is None:
            self.model.resolved()  # finetune.init_from would fill in what is missing
        limit = self.model.max_seq_len
        require(
            limit is None or self.data.seq_len <= limit,
            "data.seq_len",
            f"at most model.max_seq_len ({limit})",
            self.data.seq_len,
        )

    def _refuse_foreign_options(self) -> None:
        for name in options_of_tasks():
            owners = TaskConfig.__dataclass_fields__[name].metadata["tasks"]
            if self.task.name not in owners and self.gives("task", name):
                raise ConfigError(
                    f"task.{name} is an option of {' and '.join(owners)}, but task.name is "
                    f"{self.task.name}"
                )

    def gives(self, section: str, name: str) -> bool:
        """Whether the config sets a field, even to its default."""
        values = getattr(self, section)
        default = type(values).__dataclass_fields__[name].default
        value = getattr(values, name)
        return value != default or (value is not None and f"{section}.{name}" in self.written)

    def resolved(self) -> "Config":
        """The config with every field filled in that follows from others.

        Fields that the data, the task, the device or `finetune.init_from` fill in may be null.
        """
        name = self.run.name or "run"
        model = self.model
        if self.finetune.init_from is None:
            model = filled(model, max_seq_len=self.data.seq_len).resolved()
        return dataclasses.replace(
            self,
            run=filled(self.run, name=name, dir=f"runs/{name}"),
            model=model,
            optim=self.optim.resolved(),
            sample=filled(self.sample, every=self.train.eval_every),
        )

    def replace(self, sections: Mapping[str, Mapping[str, Any]]) -> "Config":
        """The config with fields replaced, by section and name."""
        changed = {n: dataclasses.replace(getattr(self, n), **v) for n, v in sections.items()}
        return dataclasses.replace(self, **changed)


def options_of_tasks() -> tuple[str, ...]:
    """The names of the options that only some tasks have."""
    return tuple(f.name for f in dataclasses.fields(TaskConfig) if f.metadata["tasks"])


def section_kinds() -> dict[str, type[Section]]:
    """The dataclass of each section, by name."""
    kinds = {f.name: f.type for f in dataclasses.fields(Config)}
    return {
        n: kind for n, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Section)
    }


def section_keys() -> list[str]:
    """Every section.field."""
    return [
        f"{n}.{f.name}" for n, kind in section_kinds().items() for f in dataclasses.fields(kind)
    ]
