"""Text in, text out."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from jaxlm.artifact import Loaded
from jaxlm.generation.batch import Continuation
from jaxlm.generation.beams import beam_search
from jaxlm.generation.detokenizer import BROKEN, Detokenizer
from jaxlm.generation.loop import REPORTED
from jaxlm.generation.options import PastContext
from jaxlm.generation.speculation import Speculation
from jaxlm.generation.text_batch import LOOK, TextBatch, causal, prompts_ids
from jaxlm.generation.tokens import Numbers, TokenIds, WholeNumbers
from jaxlm.tokenizer import Tokenizer


def generate(
    loaded: Loaded,
    prompts: Sequence[str],
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
    **options: Any,
) -> list[str]:
    """Continue each prompt and return the continuations alone; options as for `generate_tokens`.

    A continuation ends before the tokenizer's eos, a stop token or a stop string, wherever the
    borders between its tokens lie. With `regex` or `json_schema` it matches that, unless
    `max_new_tokens` ends it before; GenerationError where no token can. An empty prompt starts from
    the tokenizer's opening token, bos or eos; without any it raises GenerationError.
    """
    batches = TextBatch.of_prompts(
        loaded,
        prompts,
        stop_strings,
        regex,
        json_schema,
        speculation,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        past_context=past_context,
        stop_tokens=stop_tokens,
        **options,
    )
    return [text for batch in batches for text in batch.complete()]


def stream(loaded: Loaded, prompt: str, **options: Any) -> Iterator[str]:
    """Yield the continuation of a prompt in pieces of whole characters.

    Joined they are what `generate` returns with the same options.
    """
    (batch,) = TextBatch.of_prompts(loaded, [prompt], **options)
    for (piece,) in batch.run(LOOK):
        if piece:
            yield piece


class Explained(NamedTuple):
    """A token with its probability by the model, before all rules, and the likeliest others."""

    text: str
    probability: float
    others: list[tuple[str, float]]  # text and probability, likeliest first


def explain(
    loaded: Loaded, prompts: Sequence[str], num_others: int = 3, **options: Any
) -> list[list[Explained]]:
    """The tokens that `generate` continues each prompt with, and what else they might have been.

    The token that ends a text, or completes its stop string, is among them. At most nine others are
    known.
    """
    rows = []
    for batch in TextBatch.of_prompts(loaded, prompts, report=True, **options):
        batch.complete()
        rows += [explained(loaded.tokenizer, row, num_others) for row in batch.batch.rows]
    return rows


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
    prompts: Sequence[str],
    max_new_tokens: int = 64,
    num_beams: int = 4,
    num_best: int = 1,
    length_penalty: float = 1.0,
) -> list[list[tuple[str, float]]]:
    """The best continuations of each prompt by `beam_search`, with their scores, best first.

    There are fewer than `num_best` where no more exist.
    """
    model, tokenizer = causal(loaded), loaded.tokenizer
    rows = prompts_ids(tokenizer, prompts)
    stops = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    found = beam_search(
        model, loaded.params, rows, max_new_tokens, num_beams, num_best, length_penalty, stops
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
    return texts
