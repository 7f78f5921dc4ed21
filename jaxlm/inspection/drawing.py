"""How figures of a model look: tokens, heat maps, attention of heads, and bars.

Every function returns a figure of Matplotlib's whose heading says in one line what it shows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

MOST_LABELS = 64  # of an axis; where there are more tokens, every second is named, or every third
LONGEST_LABEL = 16  # letters
SIGNS = str.maketrans({"\n": "⏎", "\t": "⇥", " ": "␣", "\r": "␍", "\0": "␀"})
MOST_CELLS = 256  # tokens that a figure of tokens shows
CELLS = 10  # of them in a row
PALE, GREY, BLUE = "#eaf2fb", "#eeeeee", "#4a7fb5"


def label_of(text: str) -> str:
    """A token's text as a label: what would be invisible has a sign, and a long one is cut."""
    label = text.translate(SIGNS)
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"


def drawn(text: str) -> str:
    """Text for Matplotlib, to which two dollar signs would enclose a formula."""
    return text.replace("$", r"\$")


def canvas(width: float, height: float, heading: str) -> Any:
    """An empty figure of a size in inches under a heading."""
    # Matplotlib takes half a second to import; pyplot and its global state are not needed.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(drawn(heading), fontsize=11 * larger(width))
    return figure


def larger(width: float) -> float:
    """How much larger than usual the words around a wide figure are, which is seen from afar."""
    return min(2.0, max(1.0, width / 10))


def name_tokens(axis: Any, tokens: Sequence[str], inches: float) -> None:
    """Name the tokens along an axis that is so long, or every k-th with its position."""
    step = -(-len(tokens) // MOST_LABELS)
    places = range(0, len(tokens), step)
    labels = [drawn(label_of(tokens[i])) for i in places]
    if step > 1:  # which of them it is could not be counted
        labels = [f"{i} {label}" for i, label in zip(places, labels, strict=True)]
    size = min(9.0, max(4.5, 0.75 * 72 * inches / len(labels)))
    axis.set_ticks(places, labels, fontsize=size)
    axis.set_tick_params(length=2)
    for label in axis.get_ticklabels() if axis.axis_name == "x" else ():
        label.set_rotation(90 if len(label.get_text()) > 1 else 0)


def token_cells(
    tokens: Sequence[str], ids: Sequence[int], special: Sequence[bool], heading: str
) -> Any:
    """Each token with its position above and its number in the vocabulary below."""
    shown = min(len(tokens), MOST_CELLS)
    rows, columns = -(-shown // CELLS), min(shown, CELLS)
    if shown < len(tokens):
        heading += f" (the first {shown})"
    figure = canvas(max(5.0, 1.0 * columns + 0.2), 0.75 * rows + 0.6, heading)
    axes = figure.subplots()
    for i in range(shown):
        row, column = divmod(i, CELLS)
        colour = GREY if special[i] else PALE
        axes.add_patch(token_box(column, row, colour))
        label = label_of(tokens[i])
        size = min(13, 100 / len(label))
        axes.text(column, row, drawn(label), ha="center", va="center", fontsize=size)
        small: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": "#666666"}
        axes.text(column, row - 0.3, str(i), **small)
        axes.text(column, row + 0.3, f"id {ids[i]}", **small)
    axes.set(xlim=(-0.55, max(columns, 5) - 0.45), ylim=(rows - 0.45, -0.55))
    axes.axis("off")
    return figure


def token_box(column: int, row: int, colour: str) -> Any:
    from matplotlib.patches import FancyBboxPatch

    corner = column - 0.44, row - 0.42
    style = "round,pad=0,rounding_size=0.08"
    return FancyBboxPatch(corner, 0.88, 0.84, boxstyle=style, facecolor=colour, edgecolor="none")


def rows_of_numbers(
    values: Float[np.ndarray, "T W"],
    rows: Sequence[str],
    heading: str,
    across: str,
    down: str = "token",
) -> Any:
    """A matrix with a row a token; blue is positive, red negative, white zero."""
    inches = max(1.2, 0.17 * min(len(rows), MOST_LABELS))
    figure = canvas(9.0, inches + 1.1, heading)
    axes, largest = figure.subplots(), max(float(np.quantile(np.abs(values), 0.995)), 1e-12)
    # Of more columns than there are pixels, the largest of neighbours is seen.
    T, width = values.shape
    image = axes.imshow(
        largest_of_neighbours(values, 600),
        aspect="auto",
        cmap="RdBu",
        vmin=-largest,
        vmax=largest,
        interpolation="nearest",
        extent=(-0.5, width - 0.5, T - 0.5, -0.5),
    )
    name_tokens(axes.yaxis, rows, inches)
    axes.set(xlabel=across, ylabel=down)
    figure.colorbar(image, label="value", extend="both", aspect=inches / 0.15, pad=0.02)
    return figure


def largest_of_neighbours(values: Float[np.ndarray, "T W"], most: int) -> Float[np.ndarray, "T C"]:
    """The entry of largest magnitude in each of `most` groups of columns, or all if fewer."""
    if values.shape[1] <= most:
        return values
    groups = np.array_split(values, most, axis=1)
    places = [np.abs(group).argmax(1, keepdims=True) for group in groups]
    found = [np.take_along_axis(x, i, axis=1) for x, i in zip(groups, places, strict=True)]
    return np.concatenate(found, axis=1)


def attention_of_heads(
    maps: Float[np.ndarray, "N T S"],
    queries: Sequence[str],
    keys: Sequence[str],
    heading: str,
) -> Any:
    """The attention weights of each head of a block, a row a query."""
    from matplotlib.colors import PowerNorm

    N, T, S = maps.shape
    columns = int(np.ceil(N**0.5))
    rows = -(-N // columns)
    least = min(2.6, max(1.9, 5 / columns))
    inches = min(max(least, 0.12 * min(max(T, S), MOST_LABELS)), 32 / columns)
    wide, high = inches * min(1.0, S / T), inches * min(1.0, T / S)
    width, height = max(6.5, columns * wide + 1.6), rows * (high + 0.2) + 1.1
    figure, size = canvas(width, height, heading), 9 * larger(width)
    grid = figure.subplots(rows, columns, squeeze=False)
    # By the root of the weight, so that many small ones can be told apart.
    norm, image = PowerNorm(0.5, 0, 1), None
    for n, axes in enumerate(grid.flat):
        if n >= N:
            axes.axis("off")
            continue
        image = axes.imshow(maps[n], cmap="Blues", norm=norm, interpolation="nearest")
        axes.set_title(f"Head {n + 1}", fontsize=size)
        axes.set_xticks([])
        axes.set_yticks([])
        if n % columns == 0:
            name_tokens(axes.yaxis, queries, high)
        if n + columns >= N:  # nothing stands below
            name_tokens(axes.xaxis, keys, wide)
    figure.supylabel("token that looks (query)", fontsize=size)
    figure.supxlabel("token looked at (key)", fontsize=size)
    bar = figure.colorbar(image, ax=list(grid.flat), shrink=0.7, aspect=0.7 * height / 0.15)
    bar.set_ticks([0, 0.01, 0.1, 0.25, 0.5, 1.0], labels=["0", "0.01", "0.1", "0.25", "0.5", "1"])
    bar.set_label("attention weight", fontsize=size)
    return figure


def in_percent(chance: float) -> str:
    return f"{chance:.1%}" if chance >= 0.001 else "<0.1%"


def bars(names: Sequence[str], chances: Sequence[float], heading: str, across: str) -> Any:
    """Probabilities with their names, the first on top."""
    from matplotlib.ticker import PercentFormatter

    figure = canvas(6.5, 0.3 * len(names) + 1.2, heading)
    axes = figure.subplots()
    drawn_bars = axes.barh(range(len(names)), chances, color=BLUE, height=0.7)
    axes.bar_label(drawn_bars, [in_percent(chance) for chance in chances], padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), [drawn(name) for name in names])
    axes.invert_yaxis()
    axes.set(xlabel=across, xlim=(0, min(1.12, 1.18 * max(chances))))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure
