"""What the page of a report carries: weights or recorded activations, vocabulary, settings."""

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from jaxlm.artifact import Loaded
from jaxlm.inspection.activations import forward
from jaxlm.inspection.lenses import STREAM, logit_lens
from jaxlm.inspection.predictions import token_texts
from jaxlm.models.activations import (
    HIDDEN,
    WEIGHTS,
    layers_of,
    of_layer,
    stream_of,
    token_vectors,
)
from jaxlm.models.parameters import merge_lora
from jaxlm.models.trunk import model_frequencies
from jaxlm.tokenizer import Tokenizer
from jaxlm.tokenizer.classes import byte_alphabet, in_bytes

# Rounded to 15 bits, with a scale a row, the logits of gpt_tiny are off by 5e-4; in fp16, which
# takes more, they are off by 3e-3. A small model can have 16, which deflate less.
FEW, BITS_OF_FEW, BITS = 500_000, 16, 15
COLUMNS = 256  # of the pictures of a model that the page does not compute
NAMED = 100  # of its likeliest tokens at each position
STEP = 0.05  # of temperature
SETTINGS = (
    "architecture head labels vocab_size d_model num_layers num_encoder_layers num_heads "
    "num_kv_heads head_dim d_ff max_seq_len norm norm_position final_norm embed_norm "
    "scale_embeddings sinusoid_layout scale_attention scale_head pooler pooler_activation pooling "
    "num_token_types positions position_offset activation gated qk_norm tie_embeddings norm_eps"
)


def in_text(content: bytes) -> str:
    """Bytes, deflated, in the 85 characters of RFC 1924 but for "<", which HTML would read."""
    return base64.b85encode(zlib.compress(content, 9)).decode("ascii").replace("<", ",")


def settings_of(loaded: Loaded) -> dict[str, Any]:
    """The fields of the config that the page computes with."""
    config = loaded.config.resolved()
    settings = {name: getattr(config, name) for name in SETTINGS.split()}
    if config.positions == "rotary":
        settings["frequencies"] = np.asarray(model_frequencies(config)).tolist()
    return settings


def packed_weights(params: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bytes]:
    """The path and shape of every weight, and their bytes.

    First, in fp32, vectors and the scales of the rows of matrices; then the matrices' whole
    numbers, all high bytes before all low ones, which deflates better.
    """
    leaves: dict[str, Any] = flatten_dict(merge_lora(params), sep="/")
    tensors, plain, numbers = [], [], []
    bits = BITS_OF_FEW if sum(leaf.size for leaf in leaves.values()) < FEW else BITS
    for path, leaf in leaves.items():
        array = np.asarray(leaf, np.float32)
        tensors.append({"path": path, "shape": list(array.shape)})
        if array.ndim < 2:
            plain.append(array.reshape(-1))
            continue
        scales = np.abs(array).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
        scales = np.maximum(scales, 1e-30).astype(np.float32)
        plain.append(scales[:, 0])
        numbers.append(np.round(array / scales).astype("<i2").view("<u2").reshape(-1))
    whole = np.concatenate(numbers)
    planes = [(whole >> 8).astype(np.uint8), (whole & 255).astype(np.uint8)]
    content = np.concatenate(plain).astype("<f4").tobytes() + np.concatenate(planes).tobytes()
    return tensors, content


def recording(loaded: Loaded, ids: list[int]) -> tuple[dict[str, Any], bytes, list[int]]:
    """What the page shows of a model that it does not compute, its bytes, and the tokens it names.

    Raises: InspectionError where the model's attention shows no weights.
    """
    config, rows = loaded.config.resolved(), jnp.asarray([ids])
    capture = (*STREAM, of_layer("*", WEIGHTS), of_layer("*", HIDDEN))
    answer, found = forward(loaded.model, loaded.params, rows, capture)
    logits = np.asarray(answer[0] if isinstance(answer, tuple) else answer, np.float32)[0]
    stream = stream_of(found)
    entering = np.asarray(stream[0][0], np.float32)
    token = np.asarray(token_vectors(loaded.params)[rows[0]], np.float32)
    token = token * config.d_model**0.5 if config.scale_embeddings else token
    maps = [np.asarray(weights[0], np.float32) for weights in layers_of(found, WEIGHTS)]
    vectors = [pooled(x) for x in (token, entering - token, entering)]
    hidden = [pooled(np.asarray(x[0], np.float32)) for x in layers_of(found, HIDDEN)]
    parts = [np.round(x * 255).astype(np.uint8).tobytes() for x in maps]
    parts += [in_signed_bytes(x) for x in (*vectors, *hidden)]
    record: dict[str, Any] = {
        "T": len(ids),
        "layers": config.num_layers,
        "heads": config.num_heads,
        "columns": vectors[0].shape[1],
        "neurons": hidden[0].shape[1],
    }
    named = set(ids)
    if config.head in ("lm", "pretraining"):
        record["lens"] = [likeliest(loaded, state) for state in stream]
        named |= {token for place in record["lens"] for row in place for token, _ in row}
        record |= {"likeliest": [likeliest_logits(row) for row in logits], "step": STEP}
        named |= {token for row in record["likeliest"] for token in row[0]}
    else:
        record["logits"] = np.round(logits.astype(np.float64), 4).tolist()
    return record, b"".join(parts), sorted(named)


def likeliest_logits(
    logits: Float[np.ndarray, " V"],
) -> tuple[list[int], list[float], list[float | None]]:
    """The likeliest tokens, their logits, and what the others weigh at each temperature.

    That is the logarithm of the sum of exp(logit / temperature), None where there are no others;
    temperatures go in STEPs up to 2, as the page's slider does.
    """
    order = np.argsort(-logits, kind="stable")
    known, others = order[:NAMED], logits[order[NAMED:]].astype(np.float64)
    heats = STEP * np.arange(1, round(2 / STEP) + 1)
    values = np.round(logits[known].astype(np.float64), 3).tolist()
    if not others.size:
        return known.tolist(), values, [None] * len(heats)
    rest = jax.nn.logsumexp(others / heats[:, None], axis=1)
    return known.tolist(), values, np.round(np.asarray(rest, np.float64), 3).tolist()


def likeliest(
    loaded: Loaded, state: Float[Array, "1 T D"], top: int = 5
) -> list[list[tuple[int, float]]]:
    """The ids and probabilities that the logit lens reads off each position of a state."""
    chances = jax.nn.softmax(logit_lens(loaded.model, loaded.params, state)[0])
    values, ids = jax.lax.top_k(chances, min(top, chances.shape[-1]))
    rounded = np.round(np.asarray(values, np.float64), 4).tolist()
    pairs = zip(np.asarray(ids).tolist(), rounded, strict=True)
    return [list(zip(*pair, strict=True)) for pair in pairs]


def pooled(x: Float[np.ndarray, "T W"]) -> Float[np.ndarray, "T C"]:
    """The entry of largest magnitude in each of COLUMNS groups of columns, or all if fewer."""
    width = x.shape[1]
    if width <= COLUMNS:
        return x
    groups = np.array_split(np.arange(width), COLUMNS)
    largest = [x[:, g][np.arange(len(x)), np.abs(x[:, g]).argmax(1)] for g in groups]
    return np.stack(largest, axis=1)


def in_signed_bytes(x: np.ndarray) -> bytes:
    largest = max(float(np.quantile(np.abs(x), 0.995)), 1e-30)
    return np.round(127 * np.clip(x / largest, -1, 1)).astype(np.int8).tobytes()


def around_text(ids: list[int], plain: list[int]) -> tuple[int, int]:
    """How many special tokens stand before and behind a text's own ids."""
    start = next((i for i in range(len(ids)) if ids[i : i + len(plain)] == plain), 0)
    return start, len(ids) - start - len(plain)


def encoder_of(tokenizer: Tokenizer, ids: list[int], plain: list[int]) -> dict[str, Any] | None:
    """The rules by which the page cuts a text; None for a vocabulary that it cannot cut by.

    `plain` are the ids of the text without the special tokens around it in `ids`.
    """
    rules = json.loads(tokenizer.backend.to_str())
    model, size = rules["model"], tokenizer.vocab_size
    kinds = {"WordLevel": "char", "WordPiece": "wordpiece", "BPE": "bpe"}
    kind = kinds.get(model["type"])
    if kind is None or (kind == "bpe" and not in_bytes(tokenizer.backend)):
        return None
    before, after = around_text(ids, plain)
    names = [tokenizer.backend.id_to_token(i) or "" for i in range(size)]
    found: dict[str, Any] = {
        "kind": kind,
        "names": names,
        "before": ids[:before],
        "after": ids[len(ids) - after :],
        "special": tokenizer.special_tokens(),
    }
    unknown = tokenizer.backend.token_to_id(model.get("unk_token") or "")
    if unknown is not None:
        found["unknown"] = unknown
    if kind == "wordpiece":
        normalizer = rules.get("normalizer") or {}
        found["lower"] = bool(normalizer.get("lowercase"))
        found["cjk"] = bool(normalizer.get("handle_chinese_chars"))
    if kind == "bpe":
        alphabet = byte_alphabet()
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        found |= {"merges": pairs, "bytes": sorted(alphabet, key=alphabet.__getitem__)}
    return found


def display_names(tokenizer: Tokenizer, size: int) -> list[str]:
    """How the page shows each token of a vocabulary."""
    return token_texts(tokenizer, np.arange(size))
