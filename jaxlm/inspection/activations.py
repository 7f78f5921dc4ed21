"""A forward pass whose activations are named, captured and edited."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.artifact import Loaded
from jaxlm.generation.options import GenerationError, options_of_rows
from jaxlm.generation.rules import Context
from jaxlm.generation.sampler import option_arrays, sample_tokens
from jaxlm.inspection.naming import (
    InspectionError,
    Patterns,
    compiled_pattern,
    listed_patterns,
    refuse_unmatched,
)
from jaxlm.models import Seq2SeqLM
from jaxlm.models.activations import PER_SLOT
from jaxlm.nn.block import init_cache
from jaxlm.nn.layers import identity

Edit = Callable[[Array], Array] | Array | np.ndarray  # what stands in an activation's place
Edits = Mapping[str, Edit]
Activations = dict[str, Array]


class Tapped:
    """A tap that keeps what the patterns of `capture` match, after the edits of `edit`."""

    def __init__(self, capture: Patterns, edit: Edits | None):
        self.capture, edits = listed_patterns(capture), edit or {}
        self.patterns = (*self.capture, *edits)
        self.wanted = [compiled_pattern(pattern) for pattern in self.capture]
        self.edits = [(compiled_pattern(pattern), value) for pattern, value in edits.items()]
        self.activations: Activations = {}
        self.names: list[str] = []

    def __call__(self, name: str, x: Array) -> Array:
        self.names.append(name)
        for pattern, value in self.edits:
            if pattern.fullmatch(name):
                x = edited(name, x, value)
        if any(pattern.fullmatch(name) for pattern in self.wanted):
            self.activations[name] = x
        return x

    @property
    def tap(self) -> Callable[[str, Array], Array]:
        """Where nothing is asked, the tap that models take for none: the same program as ever."""
        return self if self.patterns else identity

    def check(self) -> None:
        """Raise InspectionError for a pattern that nothing matched."""
        if self.patterns:
            refuse_unmatched(self.patterns, self.names)


def edited(name: str, x: Array, value: Edit) -> Array:
    """An activation after its edit. Raises: InspectionError where that has another shape."""
    new = value(x) if callable(value) else value
    if new is x:
        return x
    new = jnp.asarray(new)
    if new.shape != x.shape:
        raise InspectionError(
            f"the edit of {name} gives an array of shape {new.shape}, but it takes {x.shape}"
        )
    return new.astype(x.dtype)


def forward(
    model: Any,
    params: Any,
    ids: Int[Array | np.ndarray, "B T"],
    capture: Patterns = (),
    edit: Edits | None = None,
    **keywords: Any,
) -> tuple[Any, Activations]:
    """`run` as a function of model and params, to jit, vmap or differentiate by any argument."""
    tapped = Tapped(capture, edit)
    given = {"tap": tapped.tap} if tapped.patterns else {}
    try:
        out = model.apply({"params": params}, ids, **given, **keywords)
    except TypeError as error:
        if "unexpected keyword argument 'tap'" not in str(error):
            raise
        raise InspectionError(
            f"a {type(model).__name__} shows no activations: its call takes no `tap`"
        ) from None
    tapped.check()
    return out, tapped.activations


def run(
    loaded: Loaded,
    ids: Any,
    capture: Patterns = (),
    edit: Edits | None = None,
    **keywords: Any,
) -> tuple[Any, Activations]:
    """What a model answers to ids (B, T), and the activations by path that `capture` matches.

    `ids` may also be one row of ids, or a text. `capture` is a pattern or several: a path, a glob
    such as "layers_*/attention/weights" (`**` for everything), or "re:" and a regex. `edit` maps
    patterns to functions x -> x, or to arrays of the same shape that take an activation's place;
    what is captured is what the edits returned. `keywords` are the model's, such as attention_mask;
    an encoder-decoder takes target_ids (B, T), and its paths begin with encoder/ or decoder/.

    Scores and weights of attention are (B, N, T, S), query and mixed values (B, N, T, H), key and
    value (B, K, S, H), hidden values of the feed-forward (B, T, F), all else (B, T, D). Every block
    is seen whatever `scan_layers` and `remat` say: with a capture or an edit blocks run one by one.

    Raises: InspectionError for a pattern that matches nothing, with the nearest name.
    """
    return forward(loaded.model, loaded.params, id_rows(loaded, ids), capture, edit, **keywords)


def id_rows(loaded: Loaded, ids: Any) -> Int[Array, "B T"]:
    """Ids (B, T) of a text, a row of ids, or rows of ids."""
    rows = jnp.asarray([text_ids(loaded, ids)] if isinstance(ids, str) else ids)
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not jnp.issubdtype(rows.dtype, jnp.integer) or not rows.size:
        raise InspectionError(
            f"ids are whole numbers (B, T), one row of them, or a text; got shape {rows.shape} of "
            f"{rows.dtype}"
        )
    return rows


def text_ids(loaded: Loaded, text: str) -> list[int]:
    """The ids of a text as the model reads it: an encoder's with its special tokens around it."""
    ids = loaded.tokenizer.encode_prompt(text)
    if loaded.config.architecture == "encoder":
        ids = loaded.tokenizer.backend.encode(text).ids
    if not ids:
        raise InspectionError("the text is empty; give one token or more")
    return ids


def activation_shapes(loaded: Loaded, num_tokens: int = 8) -> dict[str, tuple[int, ...]]:
    """The path and the shape of every activation for one row of tokens, without computing them."""
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(name: str, x: Array) -> Array:
        shapes[name] = x.shape
        return x

    def watched(params: Any, ids: Array) -> Any:
        both: dict[str, Any] = {"target_ids": ids} if isinstance(loaded.model, Seq2SeqLM) else {}
        return loaded.model.apply({"params": params}, ids, tap=watch, **both)

    jax.eval_shape(watched, loaded.params, jax.ShapeDtypeStruct((1, num_tokens), jnp.int32))
    return shapes


class GenerationStep(NamedTuple):
    """One pass of generation: what the model read, what it made of it, the tokens chosen then."""

    ids: Int[np.ndarray, "B T"]
    logits: Float[np.ndarray, "B V"]  # of the next token
    tokens: Int[np.ndarray, " B"]
    activations: dict[str, np.ndarray]


def run_generation(
    loaded: Loaded,
    ids: Any,
    capture: Patterns = (),
    edit: Edits | None = None,
    max_new_tokens: int = 16,
    source_ids: Any = None,
    **options: Any,
) -> list[GenerationStep]:
    """Generate with the KV cache, capturing and editing in every pass as `run` does.

    The first step reads the prompt, each later one the token before it. Keys of scores and weights
    are cut to the tokens so far. An encoder-decoder reads `source_ids` (B, S) first, and `ids` is
    what the target begins with. `options` are those of `jaxlm.generate_tokens`; tokens are the
    same. Rows have one length, and stop tokens do not stop.

    Raises: GenerationError where prompt and new tokens do not fit the model's context.
    """
    model: Any = loaded.model
    rows, config = id_rows(loaded, ids), model.config
    if not hasattr(model, "extend"):
        raise GenerationError(f"a {type(model).__name__} does not generate")
    (B, T), limit = rows.shape, config.max_seq_len
    if T + max_new_tokens - 1 > limit:
        raise GenerationError(
            f"{T} tokens and {max_new_tokens} new ones do not fit the model's context of {limit}"
        )
    choices = options_of_rows(B, max_new_tokens=max_new_tokens, **options)
    arrays = option_arrays(choices, B, config.vocab_size)
    keys = arrays.row_keys()

    @jax.jit
    def step(ids: Array, cache: Any, context: Context) -> tuple[Any, ...]:
        tapped, variables = Tapped(capture, edit), {"params": loaded.params}
        hidden, cache = model.apply(variables, ids, cache, method="extend", tap=tapped.tap)
        tapped.check()
        logits = model.apply(variables, hidden[:, -1:], method="head")[:, 0]
        tokens = sample_tokens(logits, context, arrays, keys)
        context = context.append(tokens, jnp.ones(B, bool))
        return cache, context, logits, tokens, tapped.activations

    num_slots, full = T + max_new_tokens, lambda n: jnp.full(B, n, jnp.int32)
    if isinstance(model, Seq2SeqLM):
        if source_ids is None:
            raise GenerationError("an encoder-decoder generates from source_ids")
        source = id_rows(loaded, source_ids), num_slots
        cache = model.apply({"params": loaded.params}, *source, method="start_cache")
    else:
        cache = init_cache(config, B, num_slots)
    tokens = jnp.pad(rows, ((0, 0), (0, max_new_tokens))).astype(jnp.int32)
    context, steps = Context(tokens, full(T), full(T), full(0)), []
    for i in range(max_new_tokens):
        cache, context, logits, tokens, found = step(rows, cache, context)
        cut = {
            name: np.asarray(x)[..., : T + i] if name.endswith(PER_SLOT) else np.asarray(x)
            for name, x in found.items()
        }
        read, answer, chosen = map(np.asarray, (rows, logits, tokens))
        steps.append(GenerationStep(read, answer, chosen, cut))
        rows = tokens[:, None]
    return steps


def check_language_model(loaded: Loaded) -> None:
    """Raise InspectionError unless the model gives logits over the vocabulary."""
    if loaded.config.head not in ("lm", "pretraining"):
        raise InspectionError(f"the model's head is {loaded.config.head}: it predicts no tokens")
