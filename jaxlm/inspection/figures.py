"""The figures of a report as PNG files, and their numbers as JSON."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.files import check_parent, file_in_place, to_json, write_file
from jaxlm.inspection.activations import run
from jaxlm.inspection.fonts import fonts_for
from jaxlm.inspection.lenses import logit_lens
from jaxlm.inspection.pages import checked_ids, written_target
from jaxlm.inspection.predictions import next_token_table, token_texts
from jaxlm.models import MaskedLM, Seq2SeqLM, SequenceClassifier
from jaxlm.models.activations import EMBEDDINGS, WEIGHTS, layers_of, stream_of


def write_figures(loaded: Loaded, text: str, folder: str | Path) -> list[str]:
    """Write NAME.png and NAME.json of every figure into a folder; their names.

    Raises: InspectionError as `report` does, WriteError.
    """
    folder = Path(folder)
    check_parent(folder)
    folder.mkdir(exist_ok=True)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = []
    for name, numbers, draw in figures_of(loaded, text):
        family = ["DejaVu Sans", *fonts_for(to_json(numbers))[0]]
        figure = Figure(figsize=(8, 6), layout="constrained")
        with rc_context({"font.family": family}), warnings.catch_warnings():
            # A system without the font draws boxes; the JSON has the characters.
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            draw(figure)
            with file_in_place(folder / f"{name}.png") as path:
                figure.savefig(path, format="png", dpi=120)
        write_file(folder / f"{name}.json", to_json(numbers))
        names.append(name)
    return names


def figures_of(loaded: Loaded, text: str) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """The name, the numbers and the drawing of each figure."""
    ids = checked_ids(loaded, text)
    if isinstance(loaded.model, Seq2SeqLM):
        yield from figures_of_both_sides(loaded, ids)
        return
    tokens = [label_of(x) for x in token_texts(loaded.tokenizer, ids)]
    answer, found = run(loaded, ids, "**")
    logits = answer[0] if isinstance(answer, tuple) else answer
    embedded = np.asarray(found[EMBEDDINGS][0], np.float32)
    yield "embedding", {"tokens": tokens, "values": embedded.tolist()}, strip(embedded, tokens)
    for i, weights in enumerate(layers_of(found, WEIGHTS)):
        maps = np.asarray(weights[0])
        numbers = {"tokens": tokens, "layer": i + 1, "weights": maps.tolist()}
        yield f"attention_{i + 1}", numbers, heads(maps, tokens)
    if isinstance(loaded.model, SequenceClassifier):
        chances = np.asarray(jax.nn.softmax(logits[0])).tolist()
        named = dict(zip(loaded.config.labels, chances, strict=True))
        yield "probabilities", named, bars(list(named), chances)
        return
    place = len(ids) - 1
    if isinstance(loaded.model, MaskedLM):
        place = ids.index(loaded.tokenizer.mask_id)  # pyright: ignore[reportArgumentType]
    stream = jnp.stack(stream_of(found))
    lens = logit_lens(loaded.model, loaded.params, stream)[:, 0, place]
    tables = [next_token_table(loaded.tokenizer, row, 5) for row in lens]
    numbers = {"position": place, "after": [[row._asdict() for row in t] for t in tables]}
    names = [f"{i}: {label_of(table[0].text)}" for i, table in enumerate(tables)]
    yield "lens", numbers, bars(names, [table[0].probability for table in tables])
    best = next_token_table(loaded.tokenizer, logits[0, place], 12)
    numbers = {"position": place, "likeliest": [row._asdict() for row in best]}
    yield (
        "probabilities",
        numbers,
        bars([label_of(row.text) for row in best], [row.probability for row in best]),
    )


def figures_of_both_sides(loaded: Loaded, source: list[int]) -> Iterator[tuple[str, Any, Any]]:
    """Those of an encoder-decoder: the attention of each side and between, and what comes next."""
    target = written_target(loaded, source)
    read = loaded.tokenizer.source or loaded.tokenizer
    sides = [
        [label_of(text) for text in token_texts(tokenizer, ids)]
        for tokenizer, ids in ((read, source), (loaded.tokenizer, target))
    ]
    logits, found = run(
        loaded, source, f"**/{WEIGHTS.split('/')[-1]}", target_ids=jnp.array([target])
    )
    for name, weights in found.items():
        part, block, kind, _ = name.split("/")
        rows = sides[part == "decoder"]
        columns = sides[0] if kind != "attention" else rows
        maps = np.asarray(weights[0])
        number = int(block.rpartition("_")[2]) + 1
        title = f"{part}_{kind}_{number}"
        numbers = {"tokens": rows, "looked_at": columns, "weights": maps.tolist()}
        yield title, numbers, heads(maps, rows, columns)
    best = next_token_table(loaded.tokenizer, logits[0, -1], 12)
    numbers = {"target": sides[1], "likeliest": [row._asdict() for row in best]}
    names = [label_of(row.text) for row in best]
    yield "probabilities", numbers, bars(names, [row.probability for row in best])


def label_of(text: str) -> str:
    return text.replace("\n", "⏎").replace(" ", "␣")


def strip(values: np.ndarray, tokens: list[str]) -> Any:
    """The drawing of a matrix with a row a token."""

    def draw(figure: Any) -> None:
        axes, largest = figure.subplots(), np.quantile(np.abs(values), 0.995)
        axes.imshow(values, aspect="auto", cmap="RdBu", vmin=-largest, vmax=largest)
        axes.set_yticks(range(len(tokens)), tokens)

    return draw


def heads(maps: np.ndarray, tokens: list[str], looked_at: list[str] | None = None) -> Any:
    """The drawing of the attention of every head of a block; by default tokens look at tokens."""
    columns_of = tokens if looked_at is None else looked_at

    def draw(figure: Any) -> None:
        columns = int(np.ceil(len(maps) ** 0.5))
        grid = figure.subplots(-(-len(maps) // columns), columns, squeeze=False).ravel()
        for n, axes in enumerate(grid):
            if n >= len(maps):
                axes.axis("off")
                continue
            axes.imshow(maps[n], cmap="Blues", vmin=0, vmax=1)
            axes.set_title(str(n + 1))
            few = max(len(tokens), len(columns_of)) <= 16
            axes.set_xticks(range(len(columns_of)) if few else [], columns_of if few else [])
            axes.set_yticks(range(len(tokens)) if few else [], tokens if few else [])

    return draw


def bars(names: list[str], shares: list[float]) -> Any:
    """The drawing of shares with their names, the first on top."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.barh(range(len(names)), shares)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)

    return draw
