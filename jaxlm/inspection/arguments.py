"""What users hand to readings, checked before anything is computed with it.

JAX takes an index that is out of range for the nearest that is not, which would answer another
question without a word. What is traced has a shape and no value yet: of it only that is checked.
"""

import reprlib
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import errors
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jaxlm.generation.options import is_number
from jaxlm.inspection.naming import InspectionError
from jaxlm.models import Seq2SeqLM

Index = int | np.integer | Int[Array, ""]
PLAIN = (str, bytes, bool, int, float, type(None), list, tuple, dict)
FOREIGN_PARAMS = (
    errors.ScopeParamNotFoundError,
    errors.ScopeParamShapeError,
    errors.ScopeCollectionNotFound,
)


def in_a_line(value: Any) -> str:
    """A value as a sentence names it: short, and of an array its shape and type."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of shape {tuple(value.shape)} and type {value.dtype}"
    if isinstance(value, PLAIN):
        return " ".join(reprlib.repr(value).split())
    return f"a {type(value).__name__}"


def check_number(name: str, value: Any, first: int | None = None, last: int | None = None) -> None:
    """Raise InspectionError unless a value is a whole number from `first` to `last`."""
    array = isinstance(value, jax.Array | np.ndarray)
    integral = jnp.issubdtype(value.dtype, jnp.integer) if array else is_number(value, Integral)
    whole = integral and np.ndim(value) == 0
    if whole and (isinstance(value, Tracer) or in_range(int(value), first, last)):
        return
    rule = f", at least {first}" if first is not None else ""
    rule = f" from {first} to {last}" if last is not None else rule
    told = int(value) if whole else in_a_line(value)
    raise InspectionError(f"{name} must be a whole number{rule}, got {told}")


def in_range(value: int, first: int | None, last: int | None) -> bool:
    return (first is None or first <= value) and (last is None or value <= last)


def check_index(name: str, value: Any, size: int, from_end: bool = False) -> None:
    """Raise InspectionError unless a value counts one of `size` things, maybe from their end."""
    check_number(name, value, -size if from_end else 0, size - 1)


def array_of_ids(name: str, ids: Any, others: str = "") -> Int[Array | np.ndarray, "B T"]:
    """Ids (B, T) of rows of them, or of one row. Raises: InspectionError for anything else.

    `others` tells in the sentence what the caller takes as well.
    """
    try:
        rows: Any = ids if isinstance(ids, jax.Array) else np.asarray(ids)
    except ValueError:
        raise InspectionError(f"the rows of {name} must have one length; run them apart") from None
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not jnp.issubdtype(rows.dtype, jnp.integer) or not rows.size:
        raise InspectionError(
            f"{name} must be whole numbers (B, T) or one row of them{others}, got {in_a_line(ids)}"
        )
    return rows


def check_entries(name: str, values: Any, size: int | None, what: str = "token") -> None:
    """Raise InspectionError where an array of indices has one that is none of `size` things."""
    if size is None or isinstance(values, Tracer):
        return
    known = np.asarray(values)
    if known.dtype.kind not in "iu":
        raise InspectionError(f"{name} must be whole numbers, got {in_a_line(values)}")
    wrong = known[(known < 0) | (known >= size)]
    if wrong.size:
        raise InspectionError(
            f"{name} hold the {what} {wrong[0]}, but those of the model are 0 to {size - 1}"
        )


def num_tokens(model: Any, of_source: bool = False) -> int | None:
    """The size of a model's vocabulary, or of that of its sources; None where it tells none."""
    config = getattr(model, "config", None)
    both = of_source and isinstance(model, Seq2SeqLM)
    return getattr(config, "source_vocab_size" if both else "vocab_size", None)


def checked_inputs(
    model: Any, ids: Any, keywords: Mapping[str, Any]
) -> tuple[Int[Array, "B T"], dict[str, Any]]:
    """What a model is called with, as arrays, none of whose indices JAX would silently change."""
    rows, both = array_of_ids("ids", ids), isinstance(model, Seq2SeqLM)
    check_entries("ids", rows, num_tokens(model, of_source=True))
    given = {
        name: jnp.asarray(x) if isinstance(x, list | tuple | np.ndarray) else x
        for name, x in keywords.items()
    }
    if both and given.get("target_ids") is None:
        raise InspectionError(
            "an encoder-decoder reads a source and a target: give target_ids, too, as in "
            "run(loaded, source, target_ids=target)"
        )
    if both:
        target = array_of_ids("target_ids", given["target_ids"])
        check_entries("target_ids", target, num_tokens(model))
        if len(target) != len(rows):
            raise InspectionError(f"there are {len(rows)} rows of ids and {len(target)} of targets")
        given["target_ids"] = jnp.asarray(target)
    config: Any = getattr(model, "config", None)
    if given.get("token_type_ids") is not None:
        size = getattr(config, "num_token_types", None) or None
        check_entries("token_type_ids", given["token_type_ids"], size, "type")
    if given.get("positions") is not None and getattr(config, "positions", None) == "learned":
        check_entries("positions", given["positions"], config.max_seq_len, "position")
    return jnp.asarray(rows), given


def applied(model: Any, params: Any, *args: Any, **keywords: Any) -> Any:
    """What `model.apply` returns.

    Raises: InspectionError for what is no model, params of another one, and unknown keywords.
    """
    if not isinstance(model, nn.Module):
        raise InspectionError(f"model must be one such as loaded.model, got {in_a_line(model)}")
    check_params("params", params)
    try:
        return model.apply({"params": params}, *args, **keywords)
    except FOREIGN_PARAMS as error:
        reason = str(error).split(" (https")[0].split("\n")[0].rstrip(".")
        raise InspectionError(
            f"these params are not those of this {type(model).__name__}: {reason}"
        ) from None
    except errors.InvalidRngError:
        raise InspectionError(
            'dropout draws from a key: give rngs={"dropout": jax.random.key(0)} as well'
        ) from None
    except TypeError as error:
        told = f"{error}".partition("unexpected keyword argument ")[2].strip("'\"")
        if told not in keywords:
            raise
        if told == "tap":
            told = f"a {type(model).__name__} shows no activations: its call takes no `tap`"
        else:
            told = f"a {type(model).__name__} takes no {told}"
        raise InspectionError(told) from None


def check_params(name: str, params: Any) -> None:
    """Raise InspectionError unless it is a tree of params such as `loaded.params`."""
    if not isinstance(params, Mapping):
        got = in_a_line(params)
        raise InspectionError(f"{name} must be nested dicts of arrays, as loaded.params, got {got}")
    if "params" in params:
        raise InspectionError(f"{name} must be loaded.params itself, without a key 'params'")


def check_one_trunk(model: Any, reading: str) -> None:
    """Raise InspectionError for an encoder-decoder, which a reading of one trunk cannot read."""
    if isinstance(model, Seq2SeqLM):
        raise InspectionError(
            f"{reading} reads decoders and encoders; take an encoder-decoder apart by name, as in "
            'run(loaded, source, "**/weights", target_ids=target)'
        )


def list_of_texts(name: str, texts: str | Iterable[str]) -> list[str]:
    """Texts as a list; one text alone is a list of one. Raises: InspectionError."""
    if isinstance(texts, str):
        return [texts]
    known = isinstance(texts, Iterable) and not isinstance(texts, Mapping)
    found = list(texts) if known else []
    if not known or not all(isinstance(text, str) for text in found):
        raise InspectionError(f"{name} must be a text or a list of texts, got {in_a_line(texts)}")
    return found


def as_numbers(name: str, values: Any, shape: str) -> Array:
    """An array of a shape such as "B, N, T, T", with any dims before ("..., T, D"), or one number.

    That is the shape "". Raises: InspectionError for anything else.
    """
    dims = shape.split(", ") if shape else []
    try:
        array = jnp.asarray(values)
    except (TypeError, ValueError):
        array = None
    if array is not None:
        free, square = dims[:1] == ["..."], len(dims) > 1 and dims[-1] == dims[-2]
        right = array.ndim >= len(dims) - 1 if free else array.ndim == len(dims)
        if right and not (square and array.shape[-1] != array.shape[-2]):
            return array
    kind = {"": "one number", "...": "numbers"}.get(shape, f"an array ({shape})")
    raise InspectionError(f"{name} must be {kind}, got {in_a_line(values)}")


def vocabulary_logits(answer: Any, name: str) -> Float[Array, "B T V"]:
    """The logits over tokens in what a model answers. Raises: InspectionError for other answers."""
    # A `pretraining` head gives next-sentence logits, too.
    logits = answer[0] if isinstance(answer, tuple) else answer
    if getattr(logits, "ndim", None) != 3:
        raise InspectionError(
            f"{name} reads logits over tokens (B, T, V), got {in_a_line(logits)}; the target of a "
            "classifier is label_target"
        )
    return logits


def number_from(name: str, function: Callable[[Any], Any], answer: Any) -> Float[Array, ""]:
    """What a target or a metric makes of an answer. Raises: InspectionError unless one number."""
    if not callable(function):
        raise InspectionError(
            f"{name} must be a function of what the model answers, got {in_a_line(function)}"
        )
    value = function(answer)
    kinds = (jax.Array, np.ndarray, np.number, float, int)
    if not isinstance(value, kinds) or jnp.shape(value) != ():
        raise InspectionError(f"a {name} returns one number, this one {in_a_line(value)}")
    return jnp.asarray(value, float)
