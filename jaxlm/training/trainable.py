"""Which parameters are trained, how fast each layer is, and the memory this takes."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlm.config import ConfigError, FinetuneConfig
from jaxlm.models.parameters import depth, rule_of


def trained_paths(
    paths: Sequence[str], fresh: Collection[str], config: FinetuneConfig, num_layers: int
) -> frozenset[str]:
    """Those of a model's paths, adapters included, that the config says to train.

    `fresh` are the paths that start from random weights; with adapters, only these and the
    adapters are trained. Raises: ConfigError where a regex of `finetune.freeze` is found in no
    path, or nothing is left to train.
    """
    kinds = {path: rule_of(path).kind for path in paths}
    trained = [path for path in paths if kinds[path] != "constant"]
    if config.lora_rank is not None:
        trained = [path for path in trained if kinds[path] == "adapter" or path in fresh]
    if config.train_last_layers is not None:
        if config.train_last_layers > num_layers:
            raise ConfigError(
                f"finetune.train_last_layers is {config.train_last_layers}, but the model has "
                f"{num_layers}"
            )
        first = num_layers - config.train_last_layers
        trained = [path for path in trained if depth(path, num_layers) > first]
    for pattern in config.freeze:
        if not any(re.search(pattern, path) for path in paths):
            raise ConfigError(
                f"finetune.freeze {pattern!r} is in no path of a parameter; one is {paths[0]}"
            )
        trained = [path for path in trained if not re.search(pattern, path)]
    if not trained:
        raise ConfigError("finetune leaves no parameter to train")
    return frozenset(trained)


def split(
    params: Mapping[str, Any], trained: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The params that are trained, and those that are frozen."""
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    parts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for path, leaf in leaves.items():
        parts[path not in trained][path] = leaf
    return unflatten_dict(parts[0], sep="/"), unflatten_dict(parts[1], sep="/")


def joined(trained: Mapping[str, Any], frozen: Mapping[str, Any]) -> Mapping[str, Any]:
    """The two parts of `split` as one tree again."""
    if not frozen:
        return trained
    return unflatten_dict(flatten_dict(trained) | flatten_dict(frozen))


def own_paths(
    trained: Mapping[str, Any], frozen: Mapping[str, Any], given: Collection[str]
) -> list[str] | None:
    """The paths of the weights that the model a run started from lacks, or has otherwise.

    A frozen head that is new is among them. None where these are all weights.
    """
    paths, still = (flatten_dict(part, sep="/").keys() for part in (trained, frozen))
    return sorted(paths | (still - set(given))) if still & set(given) else None


def overlay(params: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The params with leaves replaced by those given, by path."""
    return unflatten_dict(flatten_dict(params, sep="/") | dict(given), sep="/")


def scale_by_depth(decay: float, num_layers: int) -> optax.GradientTransformation:
    """Layer-wise learning rates (Howard and Ruder 2018).

    Updates of block i are multiplied by decay^(num_layers - i), those of embeddings by
    decay^(num_layers + 1).
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        leaves: dict[str, Any] = flatten_dict(updates, sep="/")
        scaled = {
            path: leaf * decay ** (num_layers + 1 - depth(path, num_layers))
            for path, leaf in leaves.items()
        }
        return unflatten_dict(scaled, sep="/"), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def memory_report(
    params: Mapping[str, Any], frozen: Mapping[str, Any], opt_state: Any
) -> dict[str, int]:
    """Number of trained parameters, and bytes of all weights, gradients and optimizer state."""

    def size(tree: Any) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))

    return {
        "num_trained": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "weights_bytes": size(params) + size(frozen),
        "gradients_bytes": size(params),
        "optimizer_bytes": size(opt_state),
    }
