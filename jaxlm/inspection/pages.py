"""A page that takes a text through a model: one file, no network, computing as one types."""

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.artifact import Loaded, check_loaded
from jaxlm.files import write_file
from jaxlm.generation import generate_tokens
from jaxlm.inspection.activations import run, text_ids
from jaxlm.inspection.arguments import in_a_line
from jaxlm.inspection.naming import InspectionError
from jaxlm.inspection.payload import (
    around_text,
    display_names,
    encoder_of,
    in_text,
    packed_weights,
    recording,
    settings_of,
)
from jaxlm.inspection.predictions import token_texts
from jaxlm.models import CausalLM, MaskedLM, Seq2SeqLM, SequenceClassifier
from jaxlm.nn.int8 import holds_int8
from jaxlm.ops.attention import attention
from jaxlm.tokenizer import Tokenizer
from jaxlm.tokenizer.characters import CJK

MOST_PARAMS = 5_000_000  # of a model whose weights travel in the file
MOST_REFERENCE = 20_000  # logits that the page is compared with
PARTS = {
    "/*STYLE*/": "style.css",
    "/*WEIGHTS_READER*/": "weights.js",
    "/*ENGINE*/": "engine.js",
    "/*TOKENS*/": "tokens.js",
    "/*WORDS*/": "words.js",
    "/*DRAWING*/": "drawing.js",
    "/*STEPS*/": "steps.js",
    "/*PAGE*/": "page.js",
}
MODELS = (CausalLM, MaskedLM, SequenceClassifier, Seq2SeqLM)  # those that the page computes
LONGEST_TARGET = 32  # tokens of what an encoder-decoder has written when the page opens


def report(loaded: Loaded, text: str, title: str = "", language: str | None = None) -> str:
    """The page (HTML) of a text's way through a model.

    A model of up to MOST_PARAMS parameters travels inside and is computed by the page; of a larger
    one, or one with relative positions or an own attention function, the page shows what jaxlm
    computed for this text. Of an encoder-decoder the text is the source; the page begins with what
    the model writes for it. `language` is "en" or "zh", by default that of the text.

    Raises: InspectionError for a head without a page, a text without a mask for a masked language
    model, and a text longer than the context.
    """
    check_loaded(loaded)
    if language not in (None, "en", "zh"):
        raise InspectionError(f"language must be en or zh, got {in_a_line(language)}")
    config = loaded.config.resolved()
    ids, source = checked_ids(loaded, text), None
    read, plain = reader_of(loaded), reader_of(loaded).encode(text)
    around = around_text(ids, plain)
    if isinstance(loaded.model, Seq2SeqLM):
        source, ids = ids, written_target(loaded, ids)
        around = 1, 0  # the token that starts a target
    kind, position = "next", len(ids) - 1
    if isinstance(loaded.model, SequenceClassifier):
        kind = "label"
    elif isinstance(loaded.model, MaskedLM):
        kind = "mask"
        position = ids.index(loaded.tokenizer.mask_id)  # pyright: ignore[reportArgumentType]
    data: dict[str, Any] = {
        "title": title,
        "text": text,
        "language": language or ("zh" if re.search(f"[{CJK}]", text) else "en"),
        "kind": kind,
        "ids": ids,
        "around": around,
        "position": position,
        "mask": loaded.tokenizer.mask_id,
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(loaded.params)),
        "config": settings_of(loaded),
    }
    known = config.positions != "relative" and loaded.model.attention is attention
    if data["num_params"] <= MOST_PARAMS and known:
        tensors, content = packed_weights(loaded.params)
        data |= {
            "tensors": tensors,
            "names": display_names(loaded.tokenizer, config.vocab_size or 0),
            "tokenizer": encoder_of(read, source or ids, plain),
            "reference": reference(loaded, ids, position, kind, source),
        }
        if source is not None:
            size = config.source_vocab_size or config.vocab_size or 0
            end = loaded.tokenizer.eos_id
            end = loaded.tokenizer.sep_id if end is None else end
            names = display_names(read, size)
            data |= {"source": source, "source_names": names, "end": end}
    elif source is not None:
        raise InspectionError(
            f"the page shows encoder-decoders that it can compute, of up to {MOST_PARAMS:,} "
            "parameters and without relative positions; jaxlm.inspection.run takes any apart"
        )
    else:
        record, content, named = recording(loaded, ids)
        texts = token_texts(loaded.tokenizer, named)
        data |= {"recorded": record, "names": dict(zip(named, texts, strict=True))}
    return assembled(data, content)


def write_report(
    loaded: Loaded, text: str, path: str | Path, title: str = "", language: str | None = None
) -> None:
    """Write the page of `report` to a file. Raises: InspectionError, WriteError."""
    write_file(path, report(loaded, text, title, language))


def reader_of(loaded: Loaded) -> Tokenizer:
    """The tokenizer of the text that the page follows: an encoder-decoder's sources'."""
    both = isinstance(loaded.model, Seq2SeqLM)
    return loaded.tokenizer.source or loaded.tokenizer if both else loaded.tokenizer


def unknown_token(loaded: Loaded, text: str) -> str | None:
    """The token that a model reads for what its vocabulary lacks, if that happens in a text."""
    reader = reader_of(loaded)
    unknown = reader.special_token("unk_token")
    lacks = unknown and unknown not in text and reader.unk_id in reader.encode(text)
    return unknown if lacks else None


def checked_ids(loaded: Loaded, text: str) -> list[int]:
    """The ids of a text that the page can follow. Raises: InspectionError."""
    config, tokenizer = loaded.config, loaded.tokenizer
    if not isinstance(loaded.model, MODELS):
        known = ", ".join(kind.__name__ for kind in MODELS)
        raise InspectionError(
            f"the page shows models of the kinds {known}; a {type(loaded.model).__name__} can be "
            "taken apart in Python, with jaxlm.inspection.run"
        )
    if holds_int8(loaded.params):
        raise InspectionError("the page shows weights as they were trained, not in int8")
    if not reader_of(loaded).encode(text):
        raise InspectionError("the text is empty; give one token or more")
    both = isinstance(loaded.model, Seq2SeqLM)
    ids = tokenizer.encode_sources([text])[0] if both else text_ids(loaded, text)
    if config.max_seq_len is not None and len(ids) > config.max_seq_len:
        raise InspectionError(
            f"the text has {len(ids)} tokens, but the model takes {config.max_seq_len}"
        )
    if isinstance(loaded.model, MaskedLM):
        mask = tokenizer.special_token("mask_token") or "[MASK]"
        if tokenizer.mask_id not in ids:
            raise InspectionError(f"write {mask} in the text where a token is missing")
    return ids


def written_target(loaded: Loaded, source: list[int]) -> list[int]:
    """What an encoder-decoder writes for a source, greedily, without its end; the start first."""
    config, tokenizer = loaded.config.resolved(), loaded.tokenizer
    end = tokenizer.sep_id if tokenizer.eos_id is None else tokenizer.eos_id
    start = config.decoder_start_id
    if start is None:
        start = tokenizer.pad_id if tokenizer.bos_id is None else tokenizer.bos_id
    room = min(LONGEST_TARGET, (config.max_seq_len or LONGEST_TARGET) - 1)
    row = np.array([source], np.int32)
    stops = () if end is None else (end,)
    new = generate_tokens(
        loaded.model,  # pyright: ignore[reportArgumentType]
        loaded.params,
        row,
        max_new_tokens=room,
        temperature=0.0,
        stop_tokens=stops,
        pad_id=0 if end is None else end,
    )[0].tolist()
    return [start or 0, *(new[: new.index(end)] if end in new else new)]


def reference(
    loaded: Loaded, ids: list[int], position: int, kind: str, source: list[int] | None = None
) -> dict[str, Any]:
    """jaxlm's own logits, at every position where they are few, for the page to compare with."""
    if source is None:
        answer, _ = run(loaded, ids)
    else:
        answer, _ = run(loaded, source, target_ids=jnp.array([ids]))
    logits = np.asarray(answer[0] if isinstance(answer, tuple) else answer, np.float32)[0]
    whole = kind == "label" or logits.size <= MOST_REFERENCE
    values = logits if whole else logits[position]
    rounded = np.round(values.astype(np.float64), 5).reshape(-1).tolist()
    return {"position": None if whole else position, "values": rounded}


def assembled(data: dict[str, Any], content: bytes) -> str:
    """The parts of the page in one."""
    folder = resources.files("jaxlm.inspection") / "page"
    page = (folder / "page.html").read_text(encoding="utf-8")
    for mark, name in PARTS.items():
        page = page.replace(mark, (folder / name).read_text(encoding="utf-8").strip())
    # A "<" in JSON could end the element that holds it.
    written = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return page.replace("/*DATA*/", written).replace("/*WEIGHTS*/", in_text(content))
