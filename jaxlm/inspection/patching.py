"""Ablation and activation patching: which heads, neurons and positions a result depends on."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.artifact import Loaded
from jaxlm.inspection.activations import Edits, forward, id_rows
from jaxlm.inspection.naming import InspectionError
from jaxlm.models.activations import (
    ATTENTION,
    EMBEDDINGS,
    FEED_FORWARD,
    HIDDEN,
    MIXED,
    RESIDUAL,
    layers_of,
    of_layer,
)

Metric = Callable[[Any], Array]  # of what the model answers, a number

# What can be switched off or patched: its name in a block, and which dim holds the units.
UNITS = {
    "heads": (MIXED, 1),
    "neurons": (HIDDEN, 2),
    "residual": (RESIDUAL, 1),
    "attention": (ATTENTION, 1),
    "feed_forward": (FEED_FORWARD, 1),
}


def unit_of(unit: str) -> tuple[str, int]:
    if unit not in UNITS:
        raise InspectionError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
    return UNITS[unit]


def replaced(unit: str, layer: int, where: Bool[Array, " U"], value: Any) -> Edits:
    """The edit that puts a value in place of some units of a block, to be given to `run`.

    `unit` is "heads" or "neurons", or a place of the residual stream ("residual", "attention",
    "feed_forward") whose units are the positions. `value` broadcasts to the activation.
    """
    name, dim = unit_of(unit)
    return {of_layer(layer, name): replacing(where, dim, value)}


def ablated(loaded: Loaded, unit: str, layer: int, which: Sequence[int], value: Any = 0.0) -> Edits:
    """The edit that switches off some heads or neurons of a block, for `run` and `run_generation`.

    `value` takes their place: 0, or the mean over a text (Michel et al. 2019; Wang et al. 2022).
    """
    config = loaded.config.resolved()
    sizes = {"heads": config.num_heads, "neurons": config.d_ff}
    if unit not in sizes:
        raise InspectionError(f"unit must be heads or neurons, got {unit!r}")
    num_units = sizes[unit]
    wrong = next((i for i in which if not 0 <= i < num_units), None)
    if wrong is not None or not 0 <= layer < config.num_layers:
        raise InspectionError(
            f"the model has layers 0 to {config.num_layers - 1} with {unit} 0 to {num_units - 1}, "
            f"but layer {layer}, {unit} {list(which)} were asked for"
        )
    return replaced(unit, layer, jnp.zeros(num_units, bool).at[jnp.array(which)].set(True), value)


def effects(
    loaded: Loaded,
    ids: Int[Array, "B T"],
    metric: Metric,
    unit: str,
    values: Sequence[Any],
    first: str | None = None,
) -> Float[Array, "M U"]:
    """The metric with each unit of each block replaced alone; values are one a block.

    `first`, if given, is the place before the blocks, whose value is the first.
    """
    name, dim = unit_of(unit)
    paths = [of_layer(i, name) for i in range(loaded.config.num_layers)]
    paths = paths if first is None else [first, *paths]
    _, found = forward(loaded.model, loaded.params, ids, paths)

    shape = len(paths), found[paths[0]].shape[dim]

    @jax.jit
    def measure(values: Sequence[Array]) -> Float[Array, " n"]:
        def at(k: Int[Array, ""]) -> Array:
            chosen = (jnp.arange(shape[0] * shape[1]) == k).reshape(shape)
            edits = {
                path: replacing(where, dim, value)
                for path, where, value in zip(paths, chosen, values, strict=True)
            }
            return metric(forward(loaded.model, loaded.params, ids, (), edits)[0])

        # One after another: all at once would take the memory of all.
        return jax.lax.map(at, jnp.arange(shape[0] * shape[1]))

    return measure(values).reshape(shape)


def replacing(where: Bool[Array, " U"], dim: int, value: Any) -> Callable[[Array], Array]:
    """The function that puts a value in place of the chosen units along one dim."""

    def edit(x: Array) -> Array:
        chosen = where.reshape([-1 if i == dim else 1 for i in range(x.ndim)])
        return jnp.where(chosen, value, x)

    return edit


def ablation_effects(
    loaded: Loaded, ids: Any, metric: Metric, unit: str = "heads", mean: bool = False
) -> Float[Array, "L U"]:
    """How the metric changes when each unit is switched off alone (Michel et al. 2019).

    `metric` maps what the model answers, logits (B, T, V), to a number; `mean` puts the unit's mean
    over the text in its place, and not zero.
    """
    rows = id_rows(loaded, ids)
    name, _ = unit_of(unit)
    logits, found = forward(loaded.model, loaded.params, rows, of_layer("*", name))
    tokens = 2 if unit == "heads" else 1  # the dim of positions
    means = [x.mean((0, tokens), keepdims=True) for x in layers_of(found, name)]
    values = means if mean else [jnp.zeros(()) for _ in means]
    return effects(loaded, rows, metric, unit, values) - metric(logits)


def patching_effects(
    loaded: Loaded, clean: Any, corrupted: Any, metric: Metric, unit: str = "residual"
) -> Float[Array, "M U"]:
    """The metric of the corrupted text with each unit as it was in the clean one.

    For heads (L, N) and neurons (L, F); for attention and feed_forward by position (L, T); for the
    residual stream by position (L + 1, T), the embeddings first. Both texts have the same number of
    tokens. Vig et al. 2020; Meng et al. 2022; Zhang and Nanda 2024 on metrics.
    """
    first = EMBEDDINGS if unit == "residual" else None
    name, _ = unit_of(unit)
    clean, corrupted = id_rows(loaded, clean), id_rows(loaded, corrupted)
    if clean.shape != corrupted.shape:
        raise InspectionError(
            f"the clean text has {clean.shape[1]} tokens and the corrupted one "
            f"{corrupted.shape[1]}; patching takes texts of one length"
        )
    paths = [of_layer(i, name) for i in range(loaded.config.num_layers)]
    paths = paths if first is None else [first, *paths]
    _, found = forward(loaded.model, loaded.params, clean, paths)
    return effects(loaded, corrupted, metric, unit, [found[path] for path in paths], first)


def restored(
    patched: Float[Array, "*n"], clean: Float[Array, ""], corrupted: Float[Array, ""]
) -> Float[Array, "*n"]:
    """Metrics as shares of the way from the corrupted text's, 0, to the clean one's, 1."""
    return (patched - corrupted) / (clean - corrupted)


def logit_difference(right: int, wrong: int, position: int = -1) -> Metric:
    """The metric of how much likelier one token is than another (Wang et al. 2022)."""
    return lambda logits: (logits[:, position, right] - logits[:, position, wrong]).mean()
