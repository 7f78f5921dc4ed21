"""Windows of running text with gaps, as a run makes its batches of them."""

import dataclasses

import numpy as np
import pytest

from jaxlm.config import ConfigError
from jaxlm.data import DataError
from jaxlm.tasks import TASKS
from jaxlm.tasks.span_corruption import MARK
from tests.tasks.fixtures import gpt_tokenizer
from tests.training.runs import TEXT, tiny

MODEL = {"architecture": "encoder_decoder"}


def task_of(folder, **data):
    config = tiny(folder, model=MODEL, data=data, task={"name": "span_corruption"})
    return TASKS["span_corruption"].from_config(config, None)


def texts(task, batch):
    """What each row reads and is to write."""
    decode = task.tokenizer.decode
    sources = [
        decode(i[m > 0], False)
        for i, m in zip(batch["source_ids"], batch["source_mask"], strict=True)
    ]
    targets = [
        decode(t[w > 0], False) for t, w in zip(batch["targets"], batch["weights"], strict=True)
    ]
    return list(zip(sources, targets, strict=True))


def test_a_batch_has_gaps_and_what_fills_them(tmp_path):
    task = task_of(tmp_path)
    batch = task.train_batch(3)
    marks = [MARK.format(i) for i in range(task.gaps)]
    for source, target in texts(task, batch):
        assert source.endswith("</s>")
        assert target.endswith("</s>")
        for mark in marks:
            after = target.split(mark)[1]
            hidden = next(iter(after.replace("</s>", "<").split("<")))
            source = source.replace(mark, hidden)
        assert source.removesuffix("</s>") in TEXT
    assert (batch["target_ids"][:, 0] == task.start).all()
    np.testing.assert_array_equal(batch["target_ids"][:, 1:], batch["targets"][:, :-1])
    again = task_of(tmp_path).train_batch(3)
    assert all(np.array_equal(batch[name], again[name]) for name in batch)
    assert not np.array_equal(batch["targets"], task.train_batch(4)["targets"])


def test_validation_covers_the_split_with_the_same_gaps_each_time(tmp_path):
    task = task_of(tmp_path)
    first, again = list(task.eval_batches()), list(task.eval_batches())
    assert all(
        np.array_equal(a["targets"], b["targets"]) for a, b in zip(first, again, strict=True)
    )
    rows = sum(int((batch["weights"].sum(axis=1) > 0).sum()) for batch in first)
    assert rows == -(-(len(task.data.val) - 1) // task.window)


def test_a_vocabulary_without_marks_and_a_window_too_small_are_refused(tmp_path):
    task = task_of(tmp_path)
    bare = dataclasses.replace(task.data, tokenizer=gpt_tokenizer())
    with pytest.raises(DataError, match=r"needs <extra_id_0> to <extra_id_0> in the vocabulary"):
        type(task)(task.config, bare)
    with pytest.raises(ConfigError, match=r"data\.seq_len must be at least 3"):
        task_of(tmp_path, seq_len=2)
