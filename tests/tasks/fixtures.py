"""Tokenizers and tasks small enough to read."""

from jaxlm.config import DataConfig, TaskConfig
from jaxlm.tasks import TASKS
from jaxlm.tokenizer import END_OF_TEXT, SPECIAL_TOKENS, train_tokenizer

TEXT = ["the cat sat on the mat in Paris", "今天天气真好，我很喜欢。", "the dog ran to Rome"] * 3


def bert_tokenizer():
    """WordPiece with [CLS] and [SEP] around texts."""
    return train_tokenizer("wordpiece", TEXT, 120, SPECIAL_TOKENS)


def gpt_tokenizer():
    """Byte-level BPE that only knows the end of a text."""
    return train_tokenizer("bpe", TEXT, 300, (END_OF_TEXT,))


def make_task(name, tokenizer, limit=32, labels=(), problem="single_label", types=2, **options):
    return TASKS[name](tokenizer, limit, labels, problem, types, TaskConfig(name, **options))


def columns(text="text", pair=None, label="label"):
    return DataConfig(text_column=text, pair_column=pair, label_column=label)


def read(name, rows, data, problem="single_label", labelled=True):
    kind = TASKS[name]
    return [kind.read(f"row {i}", row, data, problem, labelled) for i, row in enumerate(rows, 1)]
