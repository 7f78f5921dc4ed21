"""The pictures: the losses of one run and of many, and which labels are taken for which."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxlm.files import file_in_place
from jaxlm.inspection.fonts import advice_on, fonts_for

MOST_COUNTS = 40  # labels up to which each count is written into the picture


def plot_losses(path: Path, rows: list[dict[str, Any]], baselines: Mapping[str, float]) -> None:
    """Draw train and val loss in nats a token over steps, and the n-gram baselines, as a PNG."""
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    styles: dict[str, dict[str, Any]] = {
        "train": {"linewidth": 0.8, "alpha": 0.6},
        "val": {"marker": "o"},
    }
    for split, style in styles.items():
        points = [(row["step"], row["loss"]) for row in rows if row["split"] == split]
        points = [(step, loss) for step, loss in points if loss is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=split, **style)
    for order, loss in baselines.items():
        axes.axhline(loss, color="gray", linewidth=0.6, linestyle=":")
        axes.annotate(
            f"{order}-gram",
            (1.0, loss),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 2),
            textcoords="offset points",
            ha="right",
            fontsize=7,
            color="gray",
        )
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    save(figure, path)


def plot_curves(path: Path, groups: Mapping[str, Sequence[list[dict[str, Any]]]]) -> None:
    """Draw the val losses of runs over steps as a PNG, or their train losses without a val split.

    The runs of a group, by its label, have one colour.
    """
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    every = [row for runs in groups.values() for rows in runs for row in rows]
    split = "val" if any(row["split"] == "val" for row in every) else "train"
    for i, (label, runs) in enumerate(groups.items()):
        for j, rows in enumerate(runs):
            points = [(row["step"], row["loss"]) for row in rows if row["split"] == split]
            points = [(step, loss) for step, loss in points if loss is not None]
            if points:
                style = {"color": f"C{i % 10}", "alpha": 0.8, "linewidth": 1.2}
                style |= {"marker": ".", "linestyle": ("-", "--", ":", "-.")[i // 10 % 4]}
                named = label.replace("$", r"\$") if j == 0 else None  # it would begin a formula
                axes.plot(*zip(*points, strict=True), label=named, **style)
    axes.set(xlabel="step", ylabel=f"{split} loss (nats per token)")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    save(figure, path)


def plot_confusion(path: Path, counts: Int[np.ndarray, "C C"], labels: Sequence[str]) -> str:
    """Draw how often each label (a row) was given as each (a column), shaded by the row's share.

    Returns a sentence if no font of the system has the characters of the labels, else nothing.
    """
    from matplotlib import rc_context

    fonts, missing = fonts_for("".join(labels))
    side = min(12.0, 2.5 + 0.5 * len(labels))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with rc_context({"font.family": ["DejaVu Sans", *fonts]}), warnings.catch_warnings():
        # Told in one sentence, not by a warning a character.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure = new_figure(side + 1, side)
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts) if len(labels) <= MOST_COUNTS else ():
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=8)
        places = range(0, len(labels), 1 + len(labels) // (2 * MOST_COUNTS))
        # A dollar sign would begin a formula.
        names = [labels[i].replace("$", r"\$") for i in places]
        axes.set_xticks(places, names, rotation=45 if len(labels) > 4 else 0, ha="center")
        axes.set_yticks(places, names)
        axes.set(xlabel="the model's label", ylabel="the right label")
        figure.colorbar(image, label="share of the row")
        save(figure, path)
    return advice_on(missing)


def new_figure(width: float, height: float) -> Any:
    """An empty picture of a size in inches."""
    # Matplotlib takes half a second to import; pyplot and its global state are not needed.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def save(figure: Any, path: Path) -> None:
    """Write the picture whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with file_in_place(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)
