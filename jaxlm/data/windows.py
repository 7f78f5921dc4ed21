"""What the rows of a masked language model show: windows of running text, or of one document."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxlm.data.batches import LengthOrder, epochs_at, eval_batches, train_batch
from jaxlm.data.sources import DataError
from jaxlm.data.store import TokenStore


class Window(NamedTuple):
    """Tokens that stand together, and the number of their document where it is one."""

    tokens: Int[np.ndarray, " n"]
    document: int = 0


class TextWindows:
    """Windows of the text as it runs on over the borders of documents, as of a causal model.

    Of `size` tokens, `batch_size` of them a step.
    """

    def __init__(self, store: TokenStore, size: int, batch_size: int, seed: int):
        self.store, self.size, self.batch_size, self.seed = store, size, batch_size, seed
        self.mean_size = size

    def at(self, step: int) -> list[Window]:
        """The windows of a step; they depend on the seed and the step alone."""
        batch = train_batch(self.store, self.seed, step, self.batch_size, self.size)
        return [Window(ids) for ids in batch["ids"]]

    def in_order(self, batch_size: int) -> Iterator[list[Window]]:
        """Every token once, in batches filled up with empty windows."""
        for batch in eval_batches(self.store, batch_size, self.size):
            pairs = zip(batch["ids"], batch["weights"], strict=True)
            yield [Window(ids[weights > 0]) for ids, weights in pairs]

    def epochs_at(self, step: int) -> float:
        return epochs_at(self.store, step, self.batch_size, self.size)


class DocumentWindows:
    """Windows that each hold tokens of one document, those of like length together.

    As `TextWindows`, of at most `size` tokens, `mean_size` in the mean; a document is cut into as
    many as it takes. Windows of fewer than `smallest` tokens are left out, and so are special
    tokens, `special` (V,), at the end of a document.
    """

    def __init__(
        self,
        store: TokenStore,
        size: int,
        batch_size: int,
        seed: int,
        special: Bool[np.ndarray, " V"],
        smallest: int,
    ):
        self.store, self.size = store, size
        first = store.document_starts
        last = np.append(first[1:], len(store))
        last -= special[store.tokens[last - 1]]
        counts = -(-(last - first) // size)
        document = np.repeat(np.arange(len(first)), counts)
        number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = first[document] + number * size
        lengths = np.minimum(last[document] - starts, size)
        held = lengths >= smallest
        if not held.any():
            raise DataError(f"no document has {smallest} tokens or more; give more text")
        self.starts, self.lengths, self.documents = starts[held], lengths[held], document[held]
        self.order = LengthOrder(self.lengths, batch_size, seed)
        self.mean_size = float(self.lengths.mean())
        self.epochs_at = self.order.epochs_at

    def at(self, step: int) -> list[Window]:
        return self.cut(self.order.rows(step))

    def in_order(self, batch_size: int) -> Iterator[list[Window]]:
        order = np.argsort(self.lengths, kind="stable")
        for first in range(0, len(order), batch_size):
            windows = self.cut(order[first : first + batch_size])
            yield windows + [Window(np.zeros(0, np.int32))] * (batch_size - len(windows))

    def cut(self, rows: Int[np.ndarray, " B"]) -> list[Window]:
        """The windows of these numbers."""
        places = zip(self.starts[rows], self.lengths[rows], self.documents[rows], strict=True)
        tokens = self.store.tokens
        return [Window(tokens[i : i + n].astype(np.int32), int(d)) for i, n, d in places]


Windows = TextWindows | DocumentWindows
