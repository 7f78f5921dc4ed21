"""Every setting of a run: frozen dataclasses with the defaults, strict YAML, dotted overrides."""

from jaxlm.config.building import build_config, to_settings, to_yaml
from jaxlm.config.describing import describe_options
from jaxlm.config.finetuning import FinetuneConfig
from jaxlm.config.options import (
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    SampleConfig,
    TrainConfig,
)
from jaxlm.config.reading import load_config, read_yaml
from jaxlm.config.rules import ConfigError, JaxlmError

__all__ = [
    "Config",
    "ConfigError",
    "DataConfig",
    "FinetuneConfig",
    "JaxlmError",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "RunConfig",
    "SampleConfig",
    "TrainConfig",
    "build_config",
    "describe_options",
    "load_config",
    "read_yaml",
    "to_settings",
    "to_yaml",
]
