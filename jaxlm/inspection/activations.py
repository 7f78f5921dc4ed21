"""A forward pass whose activations are named, captured and edited."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.artifact import Loaded, check_loaded
from jaxlm.generation.batch import openings
from jaxlm.generation.options import GenerationError, options_of_rows
from jaxlm.generation.rules import Context
from jaxlm.generation.sampler import option_arrays, sample_tokens
from jaxlm.inspection.arguments import (
    applied,
    array_of_ids,
    check_entries,
    check_number,
    checked_inputs,
    in_a_line,
    num_tokens,
)
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
        if not isinstance(edit, Mapping | None):
            raise InspectionError(
                f"edit maps patterns to functions or arrays, got {in_a_line(edit)}"
            )
        edits = edit or {}
        self.capture = listed_patterns(capture)
        self.patterns = (*self.capture, *listed_patterns(edits))
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
    given = value(x) if callable(value) else value
    if given is x:
        return x
    try:
        new = jnp.asarray(given)
    except (TypeError, ValueError):
        new = None
    if new is None or new.shape != x.shape:
        got = in_a_line(given) if new is None else f"the shape {new.shape}"
        raise InspectionError(f"the edit of {name} gives {got}, but it takes the shape {x.shape}")
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
    rows, keywords = checked_inputs(model, ids, keywords)
    out = applied(model, params, rows, **given, **keywords)
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

    `ids` may also be one row of ids, or a text, and so may the target_ids (B, T) that an
    encoder-decoder reads beside its source: a text stands after the token that opens a target.
    `capture` is a pattern or several: a path, a glob such as "layers_*/attention/weights" (`**` for
    everything), or "re:" and a regex. `edit` maps patterns to functions x -> x, or to arrays of the
    same shape that take an activation's place; what is captured is what the edits returned.
    `keywords` are the model's, such as attention_mask. Paths of an encoder-decoder begin with
    encoder/ or decoder/.

    Scores and weights of attention are (B, N, T, S), query and mixed values (B, N, T, H), key and
    value (B, K, S, H), hidden values of the feed-forward (B, T, F), all else (B, T, D). Every block
    is seen whatever `scan_layers` and `remat` say: with a capture or an edit blocks run one by one.

    Raises: InspectionError for a pattern that matches nothing, with the nearest name, and for ids
    that are none of the vocabulary.
    """
    rows, target = id_rows(loaded, ids), keywords.get("target_ids")
    if target is not None and isinstance(loaded.model, Seq2SeqLM):
        keywords["target_ids"] = id_rows(loaded, target, "target_ids", of_target=True)
    return forward(loaded.model, loaded.params, rows, capture, edit, **keywords)


def id_rows(
    loaded: Loaded, ids: Any, name: str = "ids", of_target: bool = False
) -> Int[Array, "B T"]:
    """Ids (B, T) of a text, a row of ids, or rows of ids.

    Raises: InspectionError, and TokenizerError for a text that the vocabulary lacks.
    """
    check_loaded(loaded)
    if isinstance(ids, str):
        ids = [target_text_ids(loaded, ids) if of_target else text_ids(loaded, ids)]
    rows = array_of_ids(name, ids, ", or a text")
    check_entries(name, rows, num_tokens(loaded.model, of_source=not of_target))
    return jnp.asarray(rows)


def one_row(loaded: Loaded, ids: Any) -> Int[Array, "1 T"]:
    """The ids of a text or a row. Raises: InspectionError for several rows."""
    rows = id_rows(loaded, ids)
    if len(rows) != 1:
        raise InspectionError(f"this reads one row of ids, got {len(rows)}")
    return rows


def text_ids(loaded: Loaded, text: str) -> list[int]:
    """The ids of a text as the model reads it: with special tokens where it is trained with them.

    Of an encoder-decoder it is the source.
    """
    ids = loaded.tokenizer.encode_prompt(text)
    if loaded.config.architecture == "encoder":
        ids = loaded.tokenizer.backend.encode(text).ids
    elif isinstance(loaded.model, Seq2SeqLM):
        (ids,) = loaded.tokenizer.encode_sources([text])
    if not ids:
        raise InspectionError("the text is empty; give one token or more")
    return ids


def target_text_ids(loaded: Loaded, text: str) -> list[int]:
    """The ids of a target after the token that opens one; an empty text leaves this alone."""
    model: Any = loaded.model
    tokenizer = loaded.tokenizer
    usual = tokenizer.pad_id if tokenizer.bos_id is None else tokenizer.bos_id
    ((start,),) = openings(model, [()], usual)[0]
    return [start, *tokenizer.encode_prompt(text)]


def activation_shapes(loaded: Loaded, num_tokens: int = 8) -> dict[str, tuple[int, ...]]:
    """The path and the shape of every activation for one row of tokens, without computing them."""
    check_loaded(loaded)
    check_number("num_tokens", num_tokens, 1)
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(name: str, x: Array) -> Array:
        shapes[name] = x.shape
        return x

    def watched(params: Any, ids: Array) -> Any:
        both: dict[str, Any] = {"target_ids": ids} if isinstance(loaded.model, Seq2SeqLM) else {}
        return applied(loaded.model, params, ids, tap=watch, **both)

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
    what the target begins with: "" for nothing but the token that opens one. `options` are those of
    `jaxlm.generate_tokens`; tokens are the same. Rows have one length, and stop tokens do not stop.

    Raises: GenerationError where prompt and new tokens do not fit the model's context.
    """
    check_loaded(loaded)
    model: Any = loaded.model
    config, both = model.config, isinstance(model, Seq2SeqLM)
    if not hasattr(model, "extend"):
        raise GenerationError(f"a {type(model).__name__} does not generate")
    if (source_ids is None) == both:
        told = "generates from source_ids: give them, too" if both else "reads no source_ids"
        raise GenerationError(f"a {type(model).__name__} {told}")
    rows = id_rows(loaded, ids, of_target=both)
    sources = id_rows(loaded, source_ids, "source_ids") if both else None
    (B, T), limit = rows.shape, config.max_seq_len
    if sources is not None and len(sources) != B:
        raise GenerationError(f"there are {len(sources)} source_ids for {B} rows of ids")
    check_number("max_new_tokens", max_new_tokens, 1)
    if T + max_new_tokens - 1 > limit:
        raise GenerationError(
            f"{T} tokens and {max_new_tokens} new ones do not fit the model's context of {limit}"
        )
    choices = options_of_rows(B, max_new_tokens=max_new_tokens, **options)
    for row in choices:
        row.check_tokens(config.vocab_size)
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
    if both:
        variables = {"params": loaded.params}
        cache = model.apply(variables, sources, num_slots, method="start_cache")
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


def check_language_model(model: Any) -> None:
    """Raise InspectionError unless the model gives logits over the vocabulary."""
    head = getattr(getattr(model, "config", None), "head", None)
    if head not in ("lm", "pretraining"):
        raise InspectionError(f"the head of a {type(model).__name__} predicts no tokens")
