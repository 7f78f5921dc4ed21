"""Raw text to batches: read, clean, tokenize into flat stores, cut windows; n-gram baselines."""

from jaxlm.data.batches import epochs_at, eval_batches, train_batch
from jaxlm.data.clean import clean
from jaxlm.data.dataset import Dataset, prepare
from jaxlm.data.errors import DataError
from jaxlm.data.feeds import Feed, make_feed
from jaxlm.data.ngrams import witten_bell
from jaxlm.data.reading import Corpus, read_corpus
from jaxlm.data.store import TokenStore

__all__ = [
    "Corpus",
    "DataError",
    "Dataset",
    "Feed",
    "TokenStore",
    "clean",
    "epochs_at",
    "eval_batches",
    "make_feed",
    "prepare",
    "read_corpus",
    "train_batch",
    "witten_bell",
]
