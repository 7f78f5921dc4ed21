"""The two halves of a model that generation calls, as functions of arrays."""

from typing import Any

from jaxtyping import Array, Float, Int

from jaxlm.models import CausalLM
from jaxlm.nn.block import KVCache


def extend(
    model: CausalLM,
    params: Any,
    ids: Int[Array, "B T"],
    cache: KVCache,
    lengths: Int[Array, " B"] | None = None,
) -> tuple[Float[Array, "B T D"], KVCache]:
    """Hidden states of tokens appended to a cache; see `Decoder.extend`."""
    apply: Any = model.apply
    return apply({"params": params}, ids, cache, lengths, method="extend")


def head(model: CausalLM, params: Any, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    """Logits of hidden states."""
    apply: Any = model.apply
    return apply({"params": params}, hidden, method="head")
