"""Which parameters are trained: the choice, the two trees that it makes, and what they weigh."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from jaxlm.config import ConfigError, FinetuneConfig
from jaxlm.nn.lora import SCALE, A, B

Params = Mapping[str, Any]
LAYER = re.compile(r"backbone/layers_(\d+)/")


def trained_paths(
    paths: Sequence[str], fresh: Collection[str], config: FinetuneConfig, num_layers: int
) -> frozenset[str]:
    """The paths to train of a model's, adapters included; `fresh` are those without given weights.

    ConfigError where a pattern of `finetune.freeze` finds nothing, or nothing is left.
    """
    trained = [path for path in paths if not path.endswith(SCALE)]
    if config.lora_rank is not None:
        trained = [path for path in trained if path.endswith((A, B)) or path in fresh]
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


def depth(path: str, num_layers: int) -> int:
    """0 for the embeddings, i + 1 for block i, and one more than those for what comes after."""
    if path.startswith("backbone/embed/"):
        return 0
    block = LAYER.match(path)
    return int(block[1]) + 1 if block else num_layers + 1


def split(params: Params, trained: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The params to train, and those that stay."""
    leaves: dict[str, Any] = flatten_dict(params, sep="/")
    parts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for path, leaf in leaves.items():
        parts[path not in trained][path] = leaf
    return unflatten_dict(parts[0], sep="/"), unflatten_dict(parts[1], sep="/")


def joined(trained: Params, frozen: Params) -> Params:
    """The two parts of `split` as one tree again."""
    if not frozen:
        return trained
    return unflatten_dict(flatten_dict(trained) | flatten_dict(frozen))


def overlay(params: Params, given: Mapping[str, Array]) -> dict[str, Any]:
    """The params with leaves replaced by those given, by path."""
    return unflatten_dict(flatten_dict(params, sep="/") | dict(given), sep="/")


def slower_below(decay: float, num_layers: int) -> optax.GradientTransformation:
    """Updates of block i times decay^(num_layers - i), of embeddings once more (Howard 2018)."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        leaves: dict[str, Any] = flatten_dict(updates, sep="/")
        scaled = {
            path: leaf * decay ** (num_layers + 1 - depth(path, num_layers))
            for path, leaf in leaves.items()
        }
        return unflatten_dict(scaled, sep="/"), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def memory_report(params: Params, frozen: Params, opt_state: Any) -> dict[str, int]:
    """Parameters that are trained, and bytes of all weights, gradients and optimizer state."""

    def size(tree: Any) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))

    return {
        "num_trained": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "weights_bytes": size(params) + size(frozen),
        "gradients_bytes": size(params),
        "optimizer_bytes": size(opt_state),
    }
