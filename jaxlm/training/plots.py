"""The picture of a run's losses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plot_losses(path: Path, rows: list[dict[str, Any]], baselines: Mapping[str, float]) -> None:
    """Draw train and val loss in nats a token over steps, and the n-gram baselines, as a PNG."""
    # Matplotlib takes half a second to import; pyplot and its global state are not needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
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
    temporary = path.with_name(f".{path.name}.tmp")
    FigureCanvasAgg(figure).print_png(temporary)
    temporary.replace(path)
