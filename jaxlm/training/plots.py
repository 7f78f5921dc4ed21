"""The pictures: a run's losses, and which labels are taken for which."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxlm.files import file_in_place

# Those that systems come with; Matplotlib's own font has no Chinese.
CHINESE_FONTS = ("Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "SimHei")


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


def plot_confusion(path: Path, counts: Int[np.ndarray, "C C"], labels: Sequence[str]) -> None:
    """Draw how often each label (a row) was given as each (a column), shaded by the row's share."""
    from matplotlib import font_manager, rc_context

    known = set(font_manager.get_font_names())
    fonts = [name for name in CHINESE_FONTS if name in known]
    side = min(12.0, 2.5 + 0.5 * len(labels))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with rc_context({"font.family": ["DejaVu Sans", *fonts]}):
        figure = new_figure(side + 1, side)
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=8)
        places = range(len(labels))
        axes.set_xticks(places, labels, rotation=45 if len(labels) > 4 else 0, ha="center")
        axes.set_yticks(places, labels)
        axes.set(xlabel="the model's label", ylabel="the right label")
        figure.colorbar(image, label="share of the row")
        save(figure, path)


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
