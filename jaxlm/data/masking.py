"""Which tokens a masked language model has to predict, and what it sees in their place."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from jaxlm.config import TaskConfig
from jaxlm.data.sources import DataError
from jaxlm.tokenizer import Tokenizer
from jaxlm.tokenizer.characters import IDEOGRAPHS

SPAN_STOP, LONGEST_SPAN = 0.2, 10  # of the geometric span lengths (Joshi et al. 2020)
IDEOGRAPH = re.compile(f"[{IDEOGRAPHS}]")
SENTENCE_ENDS, CLAUSE_ENDS = "。！？!?.…\n", "，；：,;:~"


@dataclass(frozen=True)
class MaskingVocabulary:
    """What masking needs to know of each token: special ids, ends of words and of sentences."""

    size: int
    pad: int
    cls: int
    sep: int
    mask: int
    special: Bool[np.ndarray, " V"]
    continues: Bool[np.ndarray, " V"]
    chinese: Bool[np.ndarray, " V"]  # single characters
    ends_sentence: Bool[np.ndarray, " V"]
    ends_clause: Bool[np.ndarray, " V"]
    texts: Sequence[str]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "MaskingVocabulary":
        """That of a tokenizer.

        Raises: DataError where it lacks one of the special tokens.
        """
        ids = {role: getattr(tokenizer, f"{role}_id") for role in ("pad", "cls", "sep", "mask")}
        missing = [f"[{role.upper()}]" for role, i in ids.items() if i is None]
        if missing:
            raise DataError(
                f"masked_lm needs {', '.join(missing)} in the vocabulary; let the run train "
                "data.tokenizer, or give a tokenizer that has them"
            )
        size = tokenizer.vocab_size
        texts = [tokenizer.backend.id_to_token(i) or "" for i in range(size)]
        added = tokenizer.backend.get_added_tokens_decoder()
        special = np.array([i in added for i in range(size)])

        def ends_with(marks: str) -> Bool[np.ndarray, " V"]:
            return np.array([bool(text) and text[-1] in marks for text in texts])

        return cls(
            size,
            **ids,
            special=special,
            continues=np.array([text.startswith("##") for text in texts]),
            chinese=np.array([IDEOGRAPH.fullmatch(text) is not None for text in texts]),
            ends_sentence=ends_with(SENTENCE_ENDS),
            ends_clause=ends_with(CLAUSE_ENDS),
            texts=texts,
        )


def mask_rows(
    ids: Int[np.ndarray, "B T"],
    vocabulary: MaskingVocabulary,
    config: TaskConfig,
    random: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Hide a share of the tokens in each row.

    Returns `ids` (B, T) as the model sees them; `places` (B, P), the hidden positions in order;
    `targets` (B, P), their original tokens; and `weights` (B, P), 0 where a row has fewer than P.
    Of the chosen tokens `mask_share` become the mask token, `random_share` a random token, and the
    rest are unchanged (Devlin et al. 2018).
    """
    B, T = ids.shape
    P = max(1, round(config.mask_fraction * T))
    places = np.zeros((B, P), np.int32)
    weights = np.zeros((B, P), np.float32)
    for row in range(B):
        chosen = choose_places(ids[row], vocabulary, config, P, random)
        places[row, : len(chosen)] = chosen
        weights[row, : len(chosen)] = 1
    targets = np.take_along_axis(ids, places, axis=1)
    draw = random.random((B, P))
    ordinary = np.flatnonzero(~vocabulary.special)
    replaced = np.where(draw < config.mask_share, vocabulary.mask, targets)
    anything = ordinary[random.integers(len(ordinary), size=(B, P))]
    hidden = config.mask_share + config.random_share
    replaced = np.where((draw >= config.mask_share) & (draw < hidden), anything, replaced)
    seen = ids.copy()
    rows, columns = np.nonzero(weights)
    seen[rows, places[rows, columns]] = replaced[rows, columns]
    return {"ids": seen, "places": places, "targets": targets, "weights": weights}


def choose_places(
    ids: Int[np.ndarray, " T"],
    vocabulary: MaskingVocabulary,
    config: TaskConfig,
    most: int,
    random: np.random.Generator,
) -> Int[np.ndarray, " p"]:
    """The positions to hide in a row: random tokens, words or spans, up to the share."""
    candidates = np.flatnonzero(~vocabulary.special[ids])
    budget = min(most, max(1, round(config.mask_fraction * len(candidates))))
    if len(candidates) == 0:
        return candidates
    if config.masking == "token":
        return np.sort(random.choice(candidates, budget, replace=False))
    words = np.split(candidates, np.flatnonzero(word_starts(ids, candidates, vocabulary, config)))
    words = [word for word in words if len(word)]
    taken: list[np.ndarray] = []
    left, hidden = budget, np.zeros(len(words), bool)
    for first in random.permutation(len(words)):
        span = 1
        if config.masking == "span":
            span = min(int(random.geometric(SPAN_STOP)), LONGEST_SPAN)
        for i in range(first, min(first + span, len(words))):
            if not hidden[i] and len(words[i]) <= left:
                hidden[i] = True
                taken.append(words[i])
                left -= len(words[i])
        if left == 0:
            break
    # If every word is longer than the share, part of one is hidden.
    taken = taken or [words[int(random.integers(len(words)))][:budget]]
    return np.sort(np.concatenate(taken))


def segment(text: str) -> list[str]:
    """The words of a Chinese text, in order and without gaps."""
    try:
        import jieba  # pyright: ignore[reportMissingImports], an extra
    except ImportError:
        raise DataError(
            'task.segmenter jieba needs the data extra: pip install "jaxlm[data]"'
        ) from None
    jieba.setLogLevel("ERROR")
    return list(jieba.cut(text))


def word_starts(
    ids: Int[np.ndarray, " T"],
    candidates: Int[np.ndarray, " n"],
    vocabulary: MaskingVocabulary,
    config: TaskConfig,
) -> Bool[np.ndarray, " n"]:
    """True where a word begins: not at a ## piece nor, with a segmenter, inside a Chinese word."""
    tokens = ids[candidates]
    starts = ~vocabulary.continues[tokens]
    gaps = np.diff(candidates) > 1
    starts[1:] |= gaps
    if config.segmenter == "none":
        return starts
    chinese = vocabulary.chinese[tokens]
    # Split into runs of adjacent Chinese characters, which are segmented one by one.
    breaks = np.flatnonzero(gaps | (chinese[1:] != chinese[:-1])) + 1
    for run in np.split(np.arange(len(tokens)), breaks):
        if len(run) and chinese[run[0]]:
            words = segment("".join(str(vocabulary.texts[token]) for token in tokens[run]))
            starts[run] = False
            starts[run[0] + np.cumsum([0, *map(len, words[:-1])])] = True
    return starts
