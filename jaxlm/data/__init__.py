"""From raw text to batches: read, clean, tokenize, cut windows; n-gram baselines."""

from jaxlm.data.batches import epochs_at, eval_batches, train_batch
from jaxlm.data.dataset import Corpus, Dataset, clean, prepare, read_corpus
from jaxlm.data.sources import DataError
from jaxlm.data.store import TokenStore, witten_bell

__all__ = [
    "Corpus",
    "DataError",
    "Dataset",
    "TokenStore",
    "clean",
    "epochs_at",
    "eval_batches",
    "prepare",
    "read_corpus",
    "train_batch",
    "witten_bell",
]
