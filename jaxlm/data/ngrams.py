"""N-gram baselines, so that nobody takes a loss worse than a 4-gram's for a good one."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer


def witten_bell(
    train: Integer[np.ndarray, " N"],
    val: Integer[np.ndarray, " M"],
    vocab_size: int,
    orders: Sequence[int] = (1, 2, 3, 4, 5),
) -> dict[int, float]:
    """Nats per token of `val` under interpolated n-grams counted on `train`, by order.

    p(w | h) = (c(h w) + t(h) p(w | h')) / (c(h) + t(h)), where t(h) counts the different tokens
    that follow h and h' is h without its first token; below the 1-gram lies 1 / vocab_size
    (Witten and Bell, 1991). The first tokens of `val` have the end of `train` as their context.
    """
    tokens = np.concatenate([train, val])
    seen = len(train)
    contexts = np.zeros(len(tokens), np.int64)
    probability = np.full(len(val), 1 / vocab_size)
    losses = {}
    for order in range(1, max(orders) + 1):
        # An n-gram's number is the rank of its context's number and its last token: a pair that
        # fits in 64 bits, however large the vocabulary.
        pairs, grams = np.unique(contexts * vocab_size + tokens, return_inverse=True)
        num_contexts = int(contexts.max()) + 1
        counts = np.bincount(grams[:seen], minlength=len(pairs))
        totals = np.bincount(contexts[:seen], minlength=num_contexts)[contexts[seen:]]
        followers = np.bincount(pairs[counts > 0] // vocab_size, minlength=num_contexts)
        kinds = followers[contexts[seen:]]
        interpolated = (counts[grams[seen:]] + kinds * probability) / np.maximum(totals + kinds, 1)
        probability = np.where(totals > 0, interpolated, probability)
        losses[order] = float(-np.log(probability).mean())
        # The first token stands after a context of its own, the start of the text.
        contexts = np.concatenate([[len(pairs)], grams[:-1]])
    return {order: losses[order] for order in orders}
