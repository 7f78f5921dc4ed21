"""The config that a run directory keeps, and which of its fields a command may change."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from jaxlm.config import Config, ModelConfig
from jaxlm.config.schema import fields_with_role
from jaxlm.config.sections import section_kinds


def not_compared() -> set[str]:
    """Fields that do not affect training, so that a resumed run may change them."""
    return {
        f"{section}.{name}"
        for section, kind in section_kinds().items()
        for name in fields_with_role(kind, "place", "cadence")
    }


def open_fields(config: Config) -> set[str]:
    """Fields that data, task, device or the initial model fill in, and the config leaves null."""
    names = {
        f"{section}.{field.name}"
        for section, kind in section_kinds().items()
        for field in dataclasses.fields(kind)
        if field.metadata["filled_by"]
        and getattr(getattr(config, section), field.name) in (None, ())
    }
    if config.finetune.init_from is not None:
        own = fields_with_role(ModelConfig, "execution", "head")
        names |= {
            f"model.{field.name}"
            for field in dataclasses.fields(ModelConfig)
            if field.name not in own and not config.gives("model", field.name)
        }
    return names | ({"train.steps"} if config.train.epochs is not None else set())


def recorded(config: Config) -> Config:
    """The config as a run records it: passed again, it continues the run, and never deletes it."""
    run = dataclasses.replace(config.run, resume="auto", overwrite=False)
    alone = {"coordinator": None, "num_processes": None, "process_id": None}
    parallel = dataclasses.replace(config.parallel, **alone)
    return dataclasses.replace(config, run=run, parallel=parallel)


def flat(settings: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
