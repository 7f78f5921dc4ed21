"""Text in, text out: prompts continued, masked tokens filled in."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from numbers import Integral
from typing import Any, NamedTuple, overload

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxlm.artifact import Loaded, check_loaded
from jaxlm.config.schema import require
from jaxlm.generation.batch import Continuation, Reason
from jaxlm.generation.beams import beam_search
from jaxlm.generation.detokenizer import BROKEN, Detokenizer
from jaxlm.generation.loop import REPORTED
from jaxlm.generation.options import GenerationError, PastContext, is_number
from jaxlm.generation.rules import Rule
from jaxlm.generation.speculation import Speculation
from jaxlm.generation.text_batch import (
    LOOK,
    TextBatch,
    banned_ids,
    check_texts,
    end_tokens,
    forced_tokens,
    generating,
    rows_of,
)
from jaxlm.generation.tokens import Numbers, TokenIds, WholeNumbers
from jaxlm.models import MaskedLM
from jaxlm.ops.padding import bucket, pad_rows
from jaxlm.tokenizer import Tokenizer


@overload
def generate(loaded: Loaded, prompts: str, max_new_tokens: int = 64, **options: Any) -> str: ...


@overload
def generate(
    loaded: Loaded, prompts: Sequence[str], max_new_tokens: WholeNumbers = 64, **options: Any
) -> list[str]: ...


def generate(
    loaded: Loaded,
    prompts: str | Iterable[str],
    max_new_tokens: WholeNumbers = 64,
    temperature: Numbers = 1.0,
    top_k: WholeNumbers | None = None,
    top_p: Numbers | None = None,
    seed: WholeNumbers = 0,
    past_context: PastContext = "slide",
    stop_tokens: TokenIds = (),
    stop_strings: Sequence[str] = (),
    regex: str | None = None,
    json_schema: str | Mapping[str, Any] | None = None,
    speculation: Speculation | None = None,
    rule: Rule | None = None,
    **options: Any,
) -> str | list[str]:
    """Continue each prompt and return the continuations alone; options as for `generate_tokens`.

    An encoder-decoder reads each prompt as a source and writes a target; see also `translate`. A
    list of prompts gives a list of texts, a single prompt one text. A continuation ends before
    the token that ends a text for the model, a stop token or a stop string, wherever the borders
    between its tokens lie; a stop string may hold the names of special tokens. With `regex` or
    `json_schema` it matches that, unless `max_new_tokens` ends it before; GenerationError where no
    token can. An empty prompt starts from the tokenizer's opening token, bos or eos; without any it
    raises GenerationError.
    """
    found = completions(
        loaded,
        [prompts] if isinstance(prompts, str) else prompts,
        stop_strings,
        regex,
        json_schema,
        speculation,
        rule,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        past_context=past_context,
        stop_tokens=stop_tokens,
        **options,
    )
    texts = [text for text, _ in found]
    return texts[0] if isinstance(prompts, str) else texts


def completions(
    loaded: Loaded, prompts: Iterable[str], *args: Any, **options: Any
) -> list[tuple[str, Reason]]:
    """What `generate` returns for a list of prompts, and why each text ended."""
    found = []
    for batch in TextBatch.of_prompts(loaded, prompts, *args, **options):
        texts = batch.complete()
        found += zip(texts, batch.reasons, strict=True)
    return found


def stream(loaded: Loaded, prompt: str, **options: Any) -> Generator[str, None, Reason]:
    """Yield the continuation of a prompt in pieces of whole characters; return why it ended.

    Joined they are what `generate` returns with the same options.
    """
    (batch,) = TextBatch.of_prompts(loaded, [prompt], **options)
    for (piece,) in batch.run(LOOK):
        if piece:
            yield piece
    return batch.reasons[0]


class Explained(NamedTuple):
    """A token with its probability by the model, before all rules, and the likeliest others."""

    text: str
    probability: float
    others: list[tuple[str, float]]  # text and probability, likeliest first


def explain(
    loaded: Loaded, prompts: Iterable[str] | str, num_others: int = 3, **options: Any
) -> Any:
    """The tokens that `generate` continues each prompt with, and what else they might have been.

    The token that ends a text, or completes its stop string, is among them. At most nine others are
    known.
    """
    counted = is_number(num_others, Integral) and num_others >= 0
    require(counted, "num_others", "a whole number, at least 0", num_others)
    rows = []
    listed = [prompts] if isinstance(prompts, str) else prompts
    for batch in TextBatch.of_prompts(loaded, listed, report=True, **options):
        batch.complete()
        rows += [explained(loaded.tokenizer, row, num_others) for row in batch.batch.rows]
    return rows[0] if isinstance(prompts, str) else rows


def explained(tokenizer: Tokenizer, row: Continuation, num_others: int) -> list[Explained]:
    """The tokens of a row whose probabilities were reported."""

    def text(token: int) -> str:
        shown = tokenizer.decode([token], skip_special_tokens=False)
        # A part of a character shows by its name in the vocabulary.
        name = tokenizer.backend.id_to_token(token) if BROKEN in shown else None
        return shown if name is None else name

    found = []
    columns = (chain.from_iterable(row.reported[name]) for name in REPORTED)
    for token, log_prob, top, log_probs in zip(row.generated, *columns, strict=False):
        others = [(t, p) for t, p in zip(top.tolist(), np.exp(log_probs), strict=True)]
        named = [(text(t), float(p)) for t, p in others if t != token][:num_others]
        found.append(Explained(text(token), float(np.exp(log_prob)), named))
    return found


def best_texts(
    loaded: Loaded,
    prompts: Iterable[str] | str,
    max_new_tokens: int = 64,
    num_beams: int = 4,
    num_best: int = 1,
    length_penalty: float = 1.0,
) -> Any:
    """The best continuations of each prompt by `beam_search`, with their scores, best first.

    For an encoder-decoder the prompts are sources. There are fewer than `num_best` where no more
    exist.
    """
    model, tokenizer = generating(loaded), loaded.tokenizer
    rows, sources = rows_of(loaded, [prompts] if isinstance(prompts, str) else prompts)
    stops = end_tokens(loaded)
    found = beam_search(
        model,
        loaded.params,
        rows,
        max_new_tokens,
        num_beams,
        num_best,
        length_penalty,
        stops,
        banned_tokens=banned_ids(loaded),
        sources=sources,
        **forced_tokens(loaded),
    )
    texts = []
    for row, beams, counts, scores in zip(
        rows, found.tokens.tolist(), found.counts, found.scores.tolist(), strict=True
    ):
        best = []
        for tokens, count, score in zip(beams, counts, scores, strict=True):
            if count == 0:
                continue
            text = Detokenizer(tokenizer, row)
            new = [token for token in tokens[:count] if token not in stops]
            best.append((text.push(new) + text.finish(), score))
        texts.append(best)
    return texts[0] if isinstance(prompts, str) else texts


SHORTEST = 32  # tokens that a text is padded to at least


class Filled(NamedTuple):
    """A text with its masks filled by the likeliest tokens, and of each mask the candidates."""

    text: str
    candidates: list[list[tuple[str, float]]]  # (token, probability), the likeliest first


@overload
def fill(loaded: Loaded, texts: str, top: int = 5) -> Filled: ...


@overload
def fill(loaded: Loaded, texts: Sequence[str], top: int = 5) -> list[Filled]: ...


def fill(loaded: Loaded, texts: str | Sequence[str], top: int = 5) -> Filled | list[Filled]:
    """Guess what stands at each mask token of each text, one mask independent of the others.

    One text alone gives one result, a list of texts a list.

    Raises GenerationError where a text has no mask or is longer than the model's context, and for
    a model that is no MaskedLM.
    """
    check_loaded(loaded)
    require(is_number(top, Integral) and top >= 1, "top", "at least 1", top)
    if not isinstance(loaded.model, MaskedLM):
        raise GenerationError(f"a {type(loaded.model).__name__} does not fill masks")
    if isinstance(texts, str):
        return fill_text(loaded, texts, top)
    check_texts("texts", texts)
    return [fill_text(loaded, text, top) for text in texts]


def fill_text(loaded: Loaded, text: str, top: int) -> Filled:
    tokenizer = loaded.tokenizer
    mask = tokenizer.special_token("mask_token") or "[MASK]"
    ids = tokenizer.backend.encode(text).ids
    if tokenizer.mask_id is None or tokenizer.mask_id not in ids:
        raise GenerationError(
            f"the text has no mask to fill: write {mask} where a token is missing"
        )
    candidates = [
        likeliest_tokens(tokenizer, probabilities, top)
        for probabilities in mask_probabilities(loaded, ids, tokenizer.mask_id)
    ]
    # Put into the text itself, whose spacing decoding would lose.
    filled = text
    for tokens in candidates:
        filled = filled.replace(mask, tokens[0][0].removeprefix("##"), 1)
    return Filled(filled, candidates)


def mask_probabilities(
    loaded: Loaded, ids: Sequence[int], mask_id: int
) -> Float[np.ndarray, "M V"]:
    """The model's distribution over the vocabulary at each of the M masks."""
    limit = loaded.config.max_seq_len
    if len(ids) > limit:
        raise GenerationError(f"the text has {len(ids)} tokens, but the model takes {limit}")
    padded = pad_rows([ids], (1, bucket(len(ids), SHORTEST, limit)))
    real = np.arange(padded.shape[1])[None] < len(ids)
    logits = np.asarray(masked_logits(loaded.model, loaded.params, padded, real))[0]
    return np.asarray(jax.nn.softmax(logits[np.flatnonzero(np.equal(ids, mask_id))], axis=-1))


@partial(jax.jit, static_argnames="model")
def masked_logits(
    model: MaskedLM, params: Any, ids: Int[Array, "B T"], attention_mask: Bool[Array, "B T"]
) -> Float[Array, "B T V"]:
    logits: Any = model.apply({"params": params}, ids, attention_mask=attention_mask)
    # A `pretraining` head gives next-sentence logits, too.
    return logits[0] if isinstance(logits, tuple) else logits


def likeliest_tokens(
    tokenizer: Tokenizer, probabilities: Float[np.ndarray, " V"], top: int
) -> list[tuple[str, float]]:
    """The `top` likeliest tokens that are not special: the mask or an end of text fills no gap."""
    added = tokenizer.backend.get_added_tokens_decoder()
    special = [i for i in added if added[i].special]
    order = np.argsort(-probabilities)
    best = order[~np.isin(order, special)][:top]
    return [
        (tokenizer.decode([i], skip_special_tokens=False), float(probabilities[i]))
        for i in best.tolist()
    ]
