"""PEFT's adapter_config.json: what is read of it or refused, and the model it makes of a base."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.config import ModelConfig
from jaxlm.hub.configs import config_from_reference
from jaxlm.hub.directory import ExchangeError
from jaxlm.hub.tables import Family
from jaxlm.hub.weights import read_json_file

CONFIG = "adapter_config.json"
TASKS = {
    "CAUSAL_LM": "lm",
    "SEQ_CLS": "sequence_classification",
    "TOKEN_CLS": "token_classification",
    "QUESTION_ANS": "question_answering",
    "FEATURE_EXTRACTION": "none",
}
CLASSIFIERS = ("classifier", "score", "out_proj")  # with a row of weights for each label
READ = "base_model_name_or_path revision peft_type task_type r lora_alpha use_rslora rank_pattern "
READ += "alpha_pattern modules_to_save bias init_lora_weights"
# What tells how to train, or which modules have adapters, as the tensors do themselves.
PASSED = "auto_mapping inference_mode lora_dropout target_modules exclude_modules fan_in_fan_out "
PASSED += "layers_to_transform layers_pattern megatron_core qalora_group_size peft_version "
PASSED += "eva_config parent_library runtime_config"
# Starts that leave the weights of the base as they are.
STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


def refuse_options(told: Mapping[str, Any], path: Path) -> None:
    """Raise ExchangeError for what an adapter_config.json asks that is not supported, by name."""
    faults = []
    if told.get("peft_type") != "LORA":
        faults.append(f"peft_type {told.get('peft_type')!r} (LORA is read)")
    if told.get("bias", "none") != "none":
        faults.append(f"bias {told['bias']!r} (none is read)")
    start = told.get("init_lora_weights")
    if not isinstance(start, str | bool | None) or start not in STARTS:
        faults.append(f"init_lora_weights {start!r}, which changes the base")
    for name in ("r", "lora_alpha"):
        if not is_positive(told.get(name, 8)):
            faults.append(f"{name} {told[name]!r}, no number above 0")
    for name in ("rank_pattern", "alpha_pattern"):
        if not is_pattern(told.get(name) or {}):
            faults.append(f"{name} {told[name]!r}, no mapping of regexes to numbers above 0")
    known = {*READ.split(), *PASSED.split()}
    faults += [f"{name} {value!r}" for name, value in told.items() if name not in known and value]
    if faults:
        raise ExchangeError(f"{path / CONFIG} asks what is not supported: {'; '.join(faults)}")


def is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def is_pattern(value: Any) -> bool:
    try:
        return all(re.compile(key) and is_positive(number) for key, number in value.items())
    except (AttributeError, TypeError, re.error):
        return False


def adapted_config(
    path: Path,
    told: Mapping[str, Any],
    base: Loaded,
    family: Family,
    tensors: Mapping[str, np.ndarray],
) -> ModelConfig:
    """The config of the adapted model: the base's with the head of the task, and its labels.

    The labels are those of a config.json beside the adapters, else of the base, else numbered.
    """
    task = told.get("task_type")
    if task not in (None, *TASKS):
        raise ExchangeError(f"{path / CONFIG}: task_type must be one of {', '.join(TASKS)}")
    head = base.config.head if task is None else TASKS[task]
    config = base.config
    pooler = config.architecture == "encoder" and head in family.pooled_heads
    if not head.endswith("_classification"):
        return config if head == config.head else with_head(config, head, pooler)
    described = None
    if (path / "config.json").is_file():
        described = config_from_reference(read_json_file(path / "config.json"), head)
    found = [tensors[k] for k in tensors if k.rpartition(".")[0].split(".")[-1] in CLASSIFIERS]
    count = len(found[0]) if found else len(config.labels)
    for source in (described, base.config):
        if source is not None and len(source.labels) == count:
            return with_head(config, head, pooler, source.labels, source.problem)
    return with_head(config, head, pooler, tuple(f"LABEL_{i}" for i in range(count)))


def with_head(
    config: ModelConfig,
    head: str,
    pooler: bool,
    labels: tuple[str, ...] = (),
    problem: str | None = None,
) -> ModelConfig:
    problem = problem or ("regression" if len(labels) == 1 else "single_label")
    changes: dict[str, Any] = {"head": head, "pooler": pooler, "labels": labels}
    return dataclasses.replace(config, **changes, problem=problem)


def task_head(config: ModelConfig) -> str | None:
    """The head by which PEFT names a task; it has no word for masked language models."""
    return None if config.head == "lm" and config.architecture == "encoder" else config.head


def pattern_value(told: Mapping[str, Any], name: str, module: str) -> Any:
    """What the first key that matches the end of a module's name maps to, as PEFT matches them."""
    return next(
        (v for k, v in (told.get(name) or {}).items() if re.match(rf"(.*\.)?({k})$", module)), None
    )
