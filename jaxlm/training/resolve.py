"""From a config as written to what is run: whole config, task with its data, weights."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict
from jaxtyping import Array

from jaxlm.artifact import Loaded, inherited
from jaxlm.base_model import BaseModel, base_hashes, newest_base, open_base
from jaxlm.config import Config, ConfigError, DataConfig, ModelConfig
from jaxlm.config.model import POOLED_HEADS
from jaxlm.config.schema import fields_with_role, require
from jaxlm.loading import load
from jaxlm.models import shapes_by_path
from jaxlm.models.parameters import is_classifier
from jaxlm.nn.layers import compute_dtype
from jaxlm.tasks import TASKS, Objective, Task
from jaxlm.tokenizer import Tokenizer, TokenizerError
from jaxlm.training.loggers import check_loggers


@dataclasses.dataclass(frozen=True)
class Heritage:
    """What a run has of the model it starts from, beside the weights themselves.

    `paths` are those of the weights, `origin` what is true of the tuned model as well, `merged` the
    hashes of kernels that adapters were merged into, `found` where the model lies.
    """

    paths: frozenset[str] = frozenset()
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    merged: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    found: Path = Path()

    def base(
        self, config: Config, own: Collection[str], frozen: Mapping[str, Any], run: Path
    ) -> BaseModel:
        """That model as the base of a run in this folder, which has the weights `own` itself."""
        leaves: dict[str, Any] = flatten_dict(frozen, sep="/")
        theirs = {path: leaf for path, leaf in leaves.items() if path not in own}
        base = BaseModel(config.model, frozenset(own), base_hashes(theirs, self.merged), "")
        return self.place(base, config, run)

    def place(self, base: BaseModel, config: Config, run: Path) -> BaseModel:
        """The same base, lying where it was found now."""
        return base.at(str(config.finetune.init_from), self.found, run)


class Resolved(NamedTuple):
    """The whole config, the task with its data, and the weights to start from by path."""

    config: Config
    task: Task
    given: dict[str, Array]
    heritage: Heritage


def resolve(
    config: Config, task: Task | None, objective: Objective | None, run: Path | None = None
) -> Resolved:
    """Read the source and the data, and fill in all that they tell of the config.

    An own `objective` takes the place of the task's; `run` is the run that goes on. Raises
    JaxlmError on a mistake in the config, the data or the source.
    """
    check_loggers(config.run.loggers)
    asked = config
    config = config.resolved()
    source, place, origin = None, Path(), {}
    if config.finetune.init_from is not None:
        for name in ("tokenizer", "source_tokenizer"):
            given = getattr(config.data, name)
            if given != getattr(DataConfig, name):
                raise ConfigError(
                    f"data.{name} is {given}, but that of finetune.init_from is used: leave it out"
                )
        source, place = load_source(config.finetune.init_from, run)
        refuse_own_place(place, Path(str(config.run.dir)))
        config = dataclasses.replace(config, model=model_of(config, source))
    if task is None:
        if config.task.name not in TASKS:
            raise ConfigError(
                f"task.name is {config.task.name}, which names a task object given to fit"
            )
        kind = TASKS[config.task.name]
        if objective is None:
            check_architecture(kind, asked, config)
        check_data(config)
        task = kind.from_config(config, source)
        origin = {} if source is None else inherited(source.origin)
        check_prompts(config, task.tokenizer)
    if objective is not None:
        task.objective, task.own_objective = objective, True
    config = config.replace(task.config_fields())
    config = with_vocabulary(config, task.tokenizer)
    model = config.model.resolved()
    model = dataclasses.replace(model, compute_dtype=compute_dtype(model).name)
    config = dataclasses.replace(config, model=model)
    if config.train.epochs is not None:
        steps = max(1, round(config.train.epochs / task.epochs_at(1)))
        require(steps < 2**31, "train.epochs", "of below 2**31 steps in all", config.train.epochs)
        config = config.replace({"train": {"steps": steps}})
    if source is None:
        return Resolved(config, task, {}, Heritage())
    given = given_weights(source, config)
    return Resolved(config, task, given, Heritage(frozenset(given), origin, source.merged, place))


def load_source(init_from: str, run: Path | None = None) -> tuple[Loaded, Path]:
    """The model that finetune.init_from names, and where it lies.

    A `run` that goes on knows the model by its hash, and where it was.
    """
    below = None if run is None else newest_base(run / "checkpoints")
    if run is not None and below is not None:
        given = None if init_from == below.written else init_from
        return open_base(below, run, load, given)
    return load(init_from), Path(init_from)


def refuse_own_place(found: Path, run: Path) -> None:
    """ConfigError where a run would delete the model that it starts from."""
    if found.exists() and run.resolve() in (found.resolve(), *found.resolve().parents):
        raise ConfigError(
            f"run.dir is {run}, where finetune.init_from lies, which a new run would delete: "
            "choose another run.dir"
        )


def model_of(config: Config, source: Loaded) -> ModelConfig:
    """The source's model without its head, run as the config says.

    ConfigError where the config gives a field another value.
    """
    # The run's own, whatever the source has.
    own = fields_with_role(ModelConfig, "execution", "head", "name")
    changes: dict[str, Any] = {name: getattr(config.model, name) for name in own}
    del changes["preset"]
    if config.finetune.dropout is not None:
        changes["dropout"] = config.finetune.dropout
    for field in dataclasses.fields(ModelConfig):
        wanted = getattr(config.model, field.name)
        if field.name in own or wanted is None or not config.gives("model", field.name):
            continue
        theirs = changes.get(field.name, getattr(source.config, field.name))
        if wanted != theirs:
            hint = "leave it out, as the model comes from there"
            hint = "set finetune.dropout" if field.name == "dropout" else hint
            raise ConfigError(
                f"model.{field.name} is {wanted!r}, but finetune.init_from has {theirs!r}: {hint}"
            )
    return dataclasses.replace(source.config, **changes)


def check_architecture(kind: type[Task], asked: Config, config: Config) -> None:
    """Raise ConfigError unless the task trains a model of this architecture, and what is asked."""
    name, model, head = config.task.name, config.model, asked.model.head
    require(
        kind.architecture in (None, model.architecture),
        "model.architecture",
        f"{kind.architecture} for task.name {name}",
        model.architecture,
    )
    require(
        head is None or head in kind.heads,
        "model.head",
        f"{' or '.join(kind.heads)} for task.name {name}",
        head,
    )
    has_classes = any(head.endswith("_classification") for head in kind.heads)
    require(
        has_classes or not asked.model.labels,
        "model.labels",
        f"[] for task.name {name}, which has no classes",
        list(asked.model.labels),
    )
    problem = asked.model.problem
    require(
        kind.heads[0] in POOLED_HEADS or problem == ModelConfig.problem,
        "model.problem",
        f"{ModelConfig.problem} for task.name {name}, which gives texts no labels",
        problem,
    )


def check_data(config: Config) -> None:
    """Raise ConfigError for settings of the data that neither the task nor the source looks at."""
    data, named = config.data, config.data.source + (config.data.val_source or "")
    ignored = (
        {} if "hf:" in named else {"hf_config": "an hf: data set", "hf_split": "an hf: data set"}
    )
    if not config.task.on_rows:
        rows = ("val_source", "test_fraction", "pair_column", "label_column")
        ignored |= dict.fromkeys(rows, "a task on labelled rows")
    for name, what in ignored.items():
        value = getattr(data, name)
        if value != getattr(DataConfig, name):
            raise ConfigError(f"data.{name} is for {what}: leave it out, got {value!r}")


def check_prompts(config: Config, tokenizer: Tokenizer) -> None:
    """Raise ConfigError for prompts that the vocabulary cannot write, before hours of training."""
    for prompt in config.sample.prompts or () if config.sample.every else ():
        try:
            tokenizer.encode(prompt)
        except TokenizerError as error:
            raise ConfigError(f"sample.prompts holds {prompt!r}: {error}") from None


def with_vocabulary(config: Config, tokenizer: Tokenizer) -> Config:
    """The config with model.vocab_size taken from the tokenizer, or checked against it."""
    size = config.model.vocab_size
    if size is None:
        return config.replace({"model": {"vocab_size": tokenizer.vocab_size}})
    if size < tokenizer.vocab_size:
        raise ConfigError(
            f"model.vocab_size is {size}, but the tokenizer has {tokenizer.vocab_size} tokens; "
            "leave it null or raise it"
        )
    return config


def given_weights(source: Loaded, config: Config) -> dict[str, Array]:
    """The source's weights that have a place in the model, by path.

    Another head's are left out; a classifier's too, unless it tells the same labels apart.
    """
    if config.finetune.random_init:
        return {}
    shapes = shapes_by_path(config.model)
    same = source.config.head == config.model.head and source.config.labels == config.model.labels
    leaves: dict[str, Any] = flatten_dict(source.params, sep="/")
    return {
        path: leaf
        for path, leaf in leaves.items()
        if path in shapes and leaf.shape == shapes[path].shape and (same or not is_classifier(path))
    }
