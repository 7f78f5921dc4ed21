"""Ablation and activation patching: which heads, neurons and positions a result depends on."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jaxlm.artifact import Loaded, check_loaded
from jaxlm.inspection.activations import Edits, forward, id_rows
from jaxlm.inspection.arguments import (
    Index,
    as_numbers,
    check_index,
    check_one_trunk,
    in_a_line,
    number_from,
    vocabulary_logits,
)
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
    if not isinstance(unit, str) or unit not in UNITS:
        raise InspectionError(f"unit must be one of {', '.join(UNITS)}, got {in_a_line(unit)}")
    return UNITS[unit]


def replaced(unit: str, layer: int, where: Bool[Array, " U"], value: Any) -> Edits:
    """The edit that puts a value in place of some units of a block, to be given to `run`.

    `unit` is "heads" or "neurons", or a place of the residual stream ("residual", "attention",
    "feed_forward") whose units are the positions. `value` broadcasts to the activation.
    """
    name, dim = unit_of(unit)
    flags = as_numbers("where", where, "U")
    if flags.dtype != bool:
        raise InspectionError(f"where must tell of each unit True or False, got {in_a_line(where)}")
    return {of_layer(layer, name): replacing(flags, dim, value)}


def ablated(loaded: Loaded, unit: str, layer: int, which: Iterable[Any], value: Any = 0.0) -> Edits:
    """The edit that switches off some heads or neurons of a block, for `run` and `run_generation`.

    `value` takes their place: 0, or the mean over a text (Michel et al. 2019; Wang et al. 2022).
    """
    check_loaded(loaded)
    check_one_trunk(loaded.model, "ablated")
    config = loaded.config.resolved()
    sizes = {"heads": config.num_heads, "neurons": config.d_ff}
    if not isinstance(unit, str) or unit not in sizes:
        raise InspectionError(f"unit must be heads or neurons, got {in_a_line(unit)}")
    check_index("layer", layer, config.num_layers)
    if isinstance(which, str) or not isinstance(which, Iterable):
        raise InspectionError(f"which must be a list of {unit}, got {in_a_line(which)}")
    chosen = list(which)
    for i in chosen:
        check_index(f"each of the {unit}", i, sizes[unit])
    flags = jnp.zeros(sizes[unit], bool).at[jnp.array(chosen, int)].set(True)
    return replaced(unit, layer, flags, value)


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
            answer, _ = forward(loaded.model, loaded.params, ids, (), edits)
            return number_from("metric", metric, answer)

        # One after another: all at once would take the memory of all.
        return jax.lax.map(at, jnp.arange(shape[0] * shape[1]))

    return measure(values).reshape(shape)


def replacing(where: Bool[Array, " U"], dim: int, value: Any) -> Callable[[Array], Array]:
    """The function that puts a value in place of the chosen units along one dim."""

    def edit(x: Array) -> Array:
        if len(where) != x.shape[dim]:
            raise InspectionError(f"where has {len(where)} entries for {x.shape[dim]} units")
        chosen = where.reshape([-1 if i == dim else 1 for i in range(x.ndim)])
        try:
            given = jnp.broadcast_to(value, x.shape)
        except (TypeError, ValueError):
            raise InspectionError(
                f"the value must fit an activation of the shape {x.shape}, got {in_a_line(value)}"
            ) from None
        return jnp.where(chosen, given, x)

    return edit


def ablation_effects(
    loaded: Loaded, ids: Any, metric: Metric, unit: str = "heads", mean: bool = False
) -> Float[Array, "L U"]:
    """How the metric changes when each unit is switched off alone (Michel et al. 2019).

    `metric` maps what the model answers, logits (B, T, V), to a number; `mean` puts the unit's mean
    over the text in its place, and not zero.
    """
    name, _ = unit_of(unit)
    rows = id_rows(loaded, ids)
    check_one_trunk(loaded.model, "ablation_effects")
    logits, found = forward(loaded.model, loaded.params, rows, of_layer("*", name))
    tokens = 2 if unit == "heads" else 1  # the dim of positions
    means = [x.mean((0, tokens), keepdims=True) for x in layers_of(found, name)]
    values = means if mean else [jnp.zeros(()) for _ in means]
    whole = number_from("metric", metric, logits)
    return effects(loaded, rows, metric, unit, values) - whole


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
    check_one_trunk(loaded.model, "patching_effects")
    if len(clean) != len(corrupted):
        raise InspectionError(
            f"there are {len(clean)} clean rows and {len(corrupted)} corrupted ones; give as many"
        )
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
    """Metrics as shares of the way from the corrupted text's, 0, to the clean one's, 1.

    Raises: InspectionError where the two are the same.
    """
    whole = as_numbers("clean", clean, "") - as_numbers("corrupted", corrupted, "")
    if not isinstance(whole, Tracer) and whole == 0:
        raise InspectionError("the metric is the same of both texts: nothing can be restored")
    return (as_numbers("patched", patched, "...") - corrupted) / whole


def logit_difference(right: Index, wrong: Index, position: Index = -1) -> Metric:
    """The metric of how much likelier one token is than another (Wang et al. 2022).

    Called, it raises InspectionError for a token or a position that the logits have not.
    """

    def difference(answer: Any) -> Float[Array, ""]:
        logits = vocabulary_logits(answer, "logit_difference")
        check_index("position", position, logits.shape[1], from_end=True)
        for name, token in {"right": right, "wrong": wrong}.items():
            check_index(name, token, logits.shape[2])
        return (logits[:, position, right] - logits[:, position, wrong]).mean()

    return difference
