"""From a config to what its run begins with: data, the whole config, and weights to start from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict
from jaxtyping import Array

from jaxlm.artifact import Loaded
from jaxlm.config import Config, ConfigError, DataConfig, ModelConfig
from jaxlm.data import prepare
from jaxlm.data.dataset import load_tokenizer
from jaxlm.loading import load
from jaxlm.models import param_shapes
from jaxlm.models.parameters import is_classifier
from jaxlm.tasks import TASKS
from jaxlm.tasks.rowset import RowSet, read_rowset
from jaxlm.tokenizer import KINDS, SPECIAL_TOKENS, Tokenizer, train_tokenizer
from jaxlm.training.objectives import Objective, check_objective
from jaxlm.training.rowwork import RowWork
from jaxlm.training.samples import check_prompts
from jaxlm.training.work import TextWork, Work

# Fields of the model that are the run's own where the rest comes from `finetune.init_from`.
EXECUTION = ("compute_dtype", "scan_layers", "remat", "labels", "problem", "pooling")


def begin(config: Config, objective: Objective | None) -> tuple[Config, Work, Mapping[str, Array]]:
    """The config with all that data and source tell, the data, and given weights by path.

    Raises JaxlmError on a mistake in the config, the data or the source.
    """
    source = None
    if config.finetune.init_from is not None:
        if config.data.tokenizer != DataConfig.tokenizer:
            raise ConfigError(
                f"data.tokenizer is {config.data.tokenizer}, but that of finetune.init_from is "
                "used: leave it out"
            )
        source = load(config.finetune.init_from)
        config = dataclasses.replace(config, model=model_of(config, source))
    elif objective is None and not config.finetune.on_rows:
        check_objective(config)
    if config.finetune.on_rows:
        config, work = begin_rows(config, source, objective)
    else:
        config, work = begin_text(config, source, objective)
    if config.train.epochs is not None:
        steps = max(1, round(config.train.epochs / work.epochs_at(1)))
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps))
    given = {} if source is None else given_weights(source, config)
    return config, work, given


def model_of(config: Config, source: Loaded) -> ModelConfig:
    """The source's model without its head, run as the config says.

    ConfigError where the config wants another.
    """
    own = {name: getattr(config.model, name) for name in EXECUTION}
    if config.finetune.dropout is not None:
        own["dropout"] = config.finetune.dropout
    default = ModelConfig()
    for field in dataclasses.fields(ModelConfig):
        wanted = getattr(config.model, field.name)
        if field.name in EXECUTION or wanted == getattr(default, field.name):
            continue
        theirs = getattr(source.config, field.name)
        if wanted != theirs:
            hint = "leave it out, as the model comes from there"
            hint = "set finetune.dropout" if field.name == "dropout" else hint
            raise ConfigError(
                f"model.{field.name} is {wanted!r}, but finetune.init_from has {theirs!r}: {hint}"
            )
    # The task says what head it gets.
    return dataclasses.replace(source.config, **own, head="none")


def begin_text(
    config: Config, source: Loaded | None, objective: Objective | None
) -> tuple[Config, Work]:
    """Running text, in the source's tokens if there is one."""
    if source is not None:
        kept = source.config.head == "pretraining" and config.objective.name == "mlm"
        head = "pretraining" if kept else "lm"
        config = with_model(config, head=head, labels=(), pooler=None)
        check_objective(config)
    marked = config.objective.name == "mlm" or config.data.special_tokens == "cls_sep"
    tokenizer = None if source is None else source.tokenizer
    specials = SPECIAL_TOKENS if marked else ()
    data = prepare(config.data, config.run.seed, tokenizer=tokenizer, specials=specials)
    config = with_vocabulary(config, data.tokenizer)
    check_prompts(config, data.tokenizer)
    return config, TextWork(config, data, objective)


def begin_rows(
    config: Config, source: Loaded | None, objective: Objective | None
) -> tuple[Config, Work]:
    """Labelled rows or dialogues, with a tokenizer that learns from them if there is no source."""
    kind = TASKS[str(config.finetune.task)]
    if kind.head == "lm" and config.model.architecture != "decoder":
        raise ConfigError("finetune.task chat trains a decoder; the model is an encoder")
    same = source is not None and source.config.head == kind.head
    rows = read_rowset(kind, config, source.config.labels if source and same else ())
    tokenizer = learn_tokenizer(config, rows) if source is None else source.tokenizer
    pooler = source.config.pooler if source and same else None
    config = with_model(config, head=kind.head, labels=rows.labels, pooler=pooler)
    config = with_vocabulary(config, tokenizer)
    model = config.model
    task = kind(
        tokenizer,
        config.data.seq_len,
        rows.labels,
        model.problem,
        model.num_token_types,
        config.finetune,
    )
    return config, RowWork(config, rows, task, objective)


def with_model(config: Config, **fields: Any) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **fields))


def learn_tokenizer(config: Config, rows: RowSet) -> Tokenizer:
    """A tokenizer by name or file, as for running text, learned from the training rows."""
    data = config.data
    if data.tokenizer not in KINDS:
        return load_tokenizer(data.tokenizer)
    texts = [text for item in rows.train for text in item.content]
    specials = () if data.special_tokens == "none" else SPECIAL_TOKENS
    return train_tokenizer(data.tokenizer, texts, data.vocab_size, specials)


def with_vocabulary(config: Config, tokenizer: Tokenizer) -> Config:
    """The config with model.vocab_size taken from the tokenizer, or checked against it."""
    size = config.model.vocab_size
    if size is None:
        return with_model(config, vocab_size=tokenizer.vocab_size)
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
