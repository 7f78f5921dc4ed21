"""From a config as written to what is run: whole config, task with its data, weights."""

import dataclasses
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict
from jaxtyping import Array

from jaxlm.artifact import Loaded
from jaxlm.config import Config, ConfigError, DataConfig, ModelConfig
from jaxlm.config.schema import fields_with_role, require
from jaxlm.loading import load
from jaxlm.models import param_shapes
from jaxlm.models.parameters import is_classifier
from jaxlm.nn.layers import compute_dtype
from jaxlm.tasks import TASKS, Objective, Task
from jaxlm.tokenizer import Tokenizer


class Resolved(NamedTuple):
    """The whole config, the task with its data, and the weights to start from, by path."""

    config: Config
    task: Task
    given: dict[str, Array]


def resolve(config: Config, task: Task | None, objective: Objective | None) -> Resolved:
    """Read the source and the data, and fill in all that they tell of the config.

    An own `objective` takes the place of the task's. Raises JaxlmError on a mistake in the config,
    the data or the source.
    """
    asked = config
    config = config.resolved()
    source = None
    if config.finetune.init_from is not None:
        for name in ("tokenizer", "source_tokenizer"):
            given = getattr(config.data, name)
            if given != getattr(DataConfig, name):
                raise ConfigError(
                    f"data.{name} is {given}, but that of finetune.init_from is used: leave it out"
                )
        source = load(config.finetune.init_from)
        config = dataclasses.replace(config, model=model_of(config, source))
    if task is None:
        if config.task.name not in TASKS:
            raise ConfigError(
                f"task.name is {config.task.name}, which names a task object given to fit"
            )
        kind = TASKS[config.task.name]
        if objective is None:
            check_model(kind, asked, config)
        task = kind.from_config(config, source)
    if objective is not None:
        task.objective, task.own_objective = objective, True
    config = config.replace(task.config_fields())
    config = with_vocabulary(config, task.tokenizer)
    model = config.model.resolved()
    model = dataclasses.replace(model, compute_dtype=compute_dtype(model).name)
    config = dataclasses.replace(config, model=model)
    if config.train.epochs is not None:
        steps = max(1, round(config.train.epochs / task.epochs_at(1)))
        config = config.replace({"train": {"steps": steps}})
    return Resolved(config, task, {} if source is None else given_weights(source, config))


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


def check_model(kind: type[Task], asked: Config, config: Config) -> None:
    """Raise ConfigError unless the task trains a model of this architecture, and the head asked."""
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
    shapes: dict[str, Any] = flatten_dict(param_shapes(config.model), sep="/")
    same = source.config.head == config.model.head and source.config.labels == config.model.labels
    leaves: dict[str, Any] = flatten_dict(source.params, sep="/")
    return {
        path: leaf
        for path, leaf in leaves.items()
        if path in shapes and leaf.shape == shapes[path].shape and (same or not is_classifier(path))
    }
