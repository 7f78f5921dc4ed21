"""The figures of a report as PNG files, and their numbers as JSON."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxlm.artifact import Loaded
from jaxlm.files import check_parent, file_in_place, to_json, write_file
from jaxlm.inspection.activations import Activations, run
from jaxlm.inspection.drawing import (
    attention_of_heads,
    bars,
    label_of,
    rows_of_numbers,
    token_cells,
)
from jaxlm.inspection.fonts import fonts_for
from jaxlm.inspection.lenses import logit_lens, of_part
from jaxlm.inspection.pages import checked_ids, reader_of, written_target
from jaxlm.inspection.predictions import next_token_table, token_texts
from jaxlm.models import MaskedLM, Seq2SeqLM, SequenceClassifier
from jaxlm.models.activations import (
    CROSS_WEIGHTS,
    EMBEDDINGS,
    HIDDEN,
    WEIGHTS,
    layers_of,
    position_vectors,
    stream_of,
    token_vectors,
)
from jaxlm.tokenizer import Tokenizer


class Picture(NamedTuple):
    """A figure to be drawn, and what it shows in numbers."""

    name: str
    numbers: dict[str, Any]
    draw: Callable[[], Any]


def write_figures(loaded: Loaded, text: str, folder: str | Path) -> list[str]:
    """Write NAME.png and NAME.json of every figure into a folder; their names.

    Raises: InspectionError as `report` does, WriteError.
    """
    folder = Path(folder)
    check_parent(folder)
    folder.mkdir(exist_ok=True)
    from matplotlib import rc_context

    names = []
    for name, numbers, draw in pictures(loaded, text):
        written = to_json(numbers)
        with (
            rc_context({"font.family": ["DejaVu Sans", *fonts_for(written)[0]]}),
            warnings.catch_warnings(),
        ):
            # A system without the font draws boxes; the JSON has the characters.
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            with file_in_place(folder / f"{name}.png") as path:
                draw().savefig(path, format="png", dpi=120)
        write_file(folder / f"{name}.json", written)
        names.append(name)
    return names


def pictures(loaded: Loaded, text: str) -> Iterator[Picture]:
    """Every figure of a text's way through a model, in its order."""
    ids = checked_ids(loaded, text)
    if isinstance(loaded.model, Seq2SeqLM):
        yield from pictures_of_both_sides(loaded, ids)
        return
    answer, found = run(loaded, ids, "**")
    logits = answer[0] if isinstance(answer, tuple) else answer
    tokens = ReadTokens.of(loaded.tokenizer, ids)
    yield picture_of_tokens("tokens", tokens, "The text")
    yield from pictures_of_vectors(loaded, ids, tokens, found)
    yield from pictures_of_blocks(tokens, found)
    if isinstance(loaded.model, SequenceClassifier):
        chances = np.asarray(jax.nn.softmax(logits[0])).tolist()
        named = dict(zip(loaded.config.labels, chances, strict=True))
        heading = "What the model predicts: how likely each label is"
        draw = partial(bars, list(named), chances, heading, "probability")
        yield Picture("probabilities", named, draw)
        return
    place, what = len(ids) - 1, "next token"
    if isinstance(loaded.model, MaskedLM):
        place = ids.index(loaded.tokenizer.mask_id)  # pyright: ignore[reportArgumentType]
        what = f"token at the mask, position {place}"
    yield from pictures_of_predictions(loaded, found, logits, place, what)


def pictures_of_both_sides(loaded: Loaded, source: list[int]) -> Iterator[Picture]:
    """Those of an encoder-decoder: each side, how the target looks at the source, what comes."""
    target = written_target(loaded, source)
    logits, found = run(loaded, source, "**", target_ids=[target])
    sides = ReadTokens.of(reader_of(loaded), source), ReadTokens.of(loaded.tokenizer, target)
    for part, tokens, whole in zip(
        ("encoder", "decoder"), sides, ("The source", "The target so far"), strict=True
    ):
        yield picture_of_tokens(f"{part}_tokens", tokens, whole)
        own = of_part(found, part)
        heading = f"Embedding of the {part}: what enters its first block"
        yield picture_of_rows(f"{part}_embedding", tokens, own[EMBEDDINGS][0], heading)
        yield from pictures_of_blocks(tokens, own, part, sides[0])
    yield from pictures_of_predictions(
        loaded, of_part(found, "decoder"), logits, len(target) - 1, "next token", "Decoder block"
    )


class ReadTokens(NamedTuple):
    """What a model reads, token by token."""

    ids: list[int]
    texts: list[str]
    special: list[bool]

    @classmethod
    def of(cls, tokenizer: Tokenizer, ids: list[int]) -> "ReadTokens":
        added = tokenizer.backend.get_added_tokens_decoder()
        special = [i in added and added[i].special for i in ids]
        return cls(ids, token_texts(tokenizer, ids), special)


def picture_of_tokens(name: str, tokens: ReadTokens, whole: str) -> Picture:
    many = f"{len(tokens.ids)} tokens" if len(tokens.ids) > 1 else "one token"
    heading = f"{whole} in {many}: position above, id below"
    draw = partial(token_cells, tokens.texts, tokens.ids, tokens.special, heading)
    return Picture(name, {"tokens": tokens.texts, "ids": tokens.ids}, draw)


def picture_of_rows(
    name: str, tokens: ReadTokens, values: Any, heading: str, across: str = "dimension"
) -> Picture:
    array = five_decimals(values)
    draw = partial(rows_of_numbers, array, tokens.texts, heading, across)
    return Picture(name, {"tokens": tokens.texts, "values": array.tolist()}, draw)


def pictures_of_vectors(
    loaded: Loaded, ids: list[int], tokens: ReadTokens, found: Activations
) -> Iterator[Picture]:
    """The vectors of tokens and of positions, and what enters the first block."""
    config = loaded.config.resolved()
    scale = config.d_model**0.5 if config.scale_embeddings else 1.0
    vectors = token_vectors(loaded.params)[jnp.asarray(ids)] * scale
    yield picture_of_rows("token_vectors", tokens, vectors, "Embedding: the vector of each token")
    added = position_vectors(config, loaded.params, len(ids))
    if added is not None:  # rotary positions have no vectors
        heading = "Embedding: the vector of each position, which is added to the token's"
        array, places = five_decimals(added), [str(i) for i in range(len(ids))]
        draw = partial(rows_of_numbers, array, places, heading, "dimension", "position")
        yield Picture("position_vectors", {"tokens": tokens.texts, "values": array.tolist()}, draw)
    heading = "Embedding: what enters the first block"
    yield picture_of_rows("embedding", tokens, found[EMBEDDINGS][0], heading)


def pictures_of_blocks(
    tokens: ReadTokens, found: Activations, part: str = "", source: ReadTokens | None = None
) -> Iterator[Picture]:
    """The attention and the feed-forward of each block, of a part of the model or of all."""
    start, where = (f"{part}_", f" of the {part}") if part else ("", "")
    kinds = {WEIGHTS: ("attention", tokens), CROSS_WEIGHTS: ("cross_attention", source)}
    for i, hidden in enumerate(layers_of(found, HIDDEN)):
        for path, (kind, looked_at) in kinds.items():
            weights = layers_of(found, path)
            if not weights or looked_at is None:
                continue
            maps = five_decimals(weights[i][0])
            at = " in the source" if path == CROSS_WEIGHTS else ""
            named = kind.replace("_", "-")
            heading = f"Block {i + 1}{where}, {named}: where each token looks{at}"
            numbers = {"tokens": tokens.texts, "looked_at": looked_at.texts, "layer": i + 1}
            draw = partial(attention_of_heads, maps, tokens.texts, looked_at.texts, heading)
            yield Picture(f"{start}{kind}_{i + 1}", numbers | {"weights": maps.tolist()}, draw)
        heading = f"Block {i + 1}{where}, feed-forward: how active each neuron is"
        name = f"{start}feed_forward_{i + 1}"
        yield picture_of_rows(name, tokens, hidden[0], heading, "neuron")


def pictures_of_predictions(
    loaded: Loaded,
    found: Activations,
    logits: Float[Array, "1 T V"],
    place: int,
    what: str,
    block: str = "Block",
) -> Iterator[Picture]:
    """What each block would predict at a position, and what the model does."""
    lens = logit_lens(loaded.model, loaded.params, jnp.stack(stream_of(found)))[:, 0, place]
    tables = [next_token_table(loaded.tokenizer, row, 5) for row in lens]
    numbers = {"position": place, "after": [as_rows(table) for table in tables]}
    places = ["embedding", *(f"{block} {i}" for i in range(1, len(tables)))]
    names = [f"{at}: {label_of(table[0].text)}" for at, table in zip(places, tables, strict=True)]
    chances = [table[0].probability for table in tables]
    heading = f"Logit lens: the likeliest {what}, after each block"
    yield Picture("lens", numbers, partial(bars, names, chances, heading, "probability"))
    best = next_token_table(loaded.tokenizer, logits[0, place], 12)
    numbers = {"position": place, "likeliest": as_rows(best)}
    names = [label_of(row.text) for row in best]
    chances = [row.probability for row in best]
    heading = f"What the model predicts: candidates for the {what}"
    yield Picture("probabilities", numbers, partial(bars, names, chances, heading, "probability"))


def as_rows(table: Sequence[Any]) -> list[dict[str, Any]]:
    return [row._asdict() for row in table]


def five_decimals(values: Any) -> np.ndarray:
    """Values as NumPy has them, to five decimals, as JSON holds them."""
    return np.round(np.asarray(values, np.float64), 5)
