"""The config of a run: sections of options with defaults, strict YAML, dotted overrides."""

from jaxlm.config.learning import FinetuneConfig, OptimConfig, TrainConfig
from jaxlm.config.model import ModelConfig
from jaxlm.config.parallel import ParallelConfig
from jaxlm.config.presets import PRESETS, preset
from jaxlm.config.reading import (
    build_config,
    describe_options,
    load_config,
    read_yaml,
    to_mapping,
    to_yaml,
)
from jaxlm.config.schema import ConfigError, JaxlmError
from jaxlm.config.sections import (
    Config,
    DataConfig,
    RunConfig,
    SampleConfig,
)
from jaxlm.config.task import TaskConfig

__all__ = [
    "PRESETS",
    "Config",
    "ConfigError",
    "DataConfig",
    "FinetuneConfig",
    "JaxlmError",
    "ModelConfig",
    "OptimConfig",
    "ParallelConfig",
    "RunConfig",
    "SampleConfig",
    "TaskConfig",
    "TrainConfig",
    "build_config",
    "describe_options",
    "load_config",
    "preset",
    "read_yaml",
    "to_mapping",
    "to_yaml",
]
