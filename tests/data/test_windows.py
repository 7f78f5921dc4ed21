"""What a masked language model reads: windows of one document, and pairs of sentences."""

import numpy as np
import pytest

from jaxlm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainConfig
from jaxlm.data import DataError, Dataset, TokenStore
from jaxlm.data.masked_batches import DocumentWindows, MaskedBatches, Window
from jaxlm.tokenizer import SPECIAL_TOKENS, train_tokenizer

LENGTHS = (3, 40, 9, 1, 21, 9)
SPECIAL = np.arange(1000) == 999


def make_store(lengths=LENGTHS, end=999):
    """Documents of tokens that count up from the hundredfold of their number, each with an end."""
    documents = [[*range(100 * i, 100 * i + n), end] for i, n in enumerate(lengths)]
    starts = np.cumsum([0, *map(len, documents)])[:-1]
    return TokenStore(np.concatenate(documents).astype(np.uint16), starts, 1, "")


def windows_of(size=16, batch_size=2, seed=0, smallest=1):
    return DocumentWindows(make_store(), size, batch_size, seed, SPECIAL, smallest)


def test_a_window_holds_tokens_of_one_document_and_not_its_end():
    batches = list(windows_of().in_order(4))
    assert {len(batch) for batch in batches} == {4}
    found = [window for batch in batches for window in batch if len(window.tokens)]
    tokens = np.concatenate([window.tokens for window in found])
    expected = [100 * i + j for i, n in enumerate(LENGTHS) for j in range(n)]
    assert sorted(tokens.tolist()) == expected
    for window in found:
        assert len(window.tokens) <= 16
        np.testing.assert_array_equal(np.diff(window.tokens), 1)
        assert window.document == window.tokens[0] // 100


def test_an_epoch_takes_every_window_once_and_batches_are_of_like_length():
    windows = DocumentWindows(make_store([n % 30 + 1 for n in range(200)]), 16, 10, 0, SPECIAL, 1)
    steps = windows.order.steps_per_epoch
    seen = [window.tokens[0] for step in range(steps) for window in windows.at(step)]
    assert len(set(seen)) == len(seen) == len(windows.starts) // 10 * 10
    spread = [np.ptp([len(window.tokens) for window in windows.at(step)]) for step in range(steps)]
    assert np.mean(spread) < 2
    assert windows.epochs_at(steps) == 1


def test_batches_of_windows_depend_on_seed_and_step_alone():
    windows = windows_of()
    first = windows.at(5)
    windows.at(0)
    again, other = windows_of().at(5), windows_of(seed=1)
    pairs = zip(first, again, strict=True)
    assert all(np.array_equal(one.tokens, two.tokens) for one, two in pairs)
    starts = [[found.at(step)[0].tokens[0] for step in range(4)] for found in (windows, other)]
    assert starts[0] != starts[1]


def test_short_windows_are_left_out_and_none_at_all_is_told():
    windows = windows_of(smallest=5)
    lengths = [len(window.tokens) for batch in windows.in_order(1) for window in batch]
    assert min(lengths) == 5
    with pytest.raises(DataError, match="no document has 50 or more tokens"):
        windows_of(smallest=50)


NUMBERS = "一二三四五六七八"
TEXTS = [f"第{n}天天气真好。我们去公园{'玩' * i}，很开心！" for i, n in enumerate(NUMBERS)]


@pytest.fixture(scope="module")
def dataset():
    tokenizer = train_tokenizer("wordpiece", TEXTS, 80, SPECIAL_TOKENS)
    documents = [[*tokenizer.encode(text), tokenizer.sep_id] for text in TEXTS]
    starts = np.cumsum([0, *map(len, documents)])[:-1]
    store = TokenStore(np.concatenate(documents).astype(np.uint16), starts, 1, "")
    return Dataset(tokenizer, store, store, "")


def batches_of(dataset, head, batch_size=4):
    config = Config(
        model=ModelConfig(architecture="encoder", head=head),
        data=DataConfig(mask_documents=True, seq_len=64),
        task=TaskConfig(name="masked_lm"),
        train=TrainConfig(batch_size=batch_size),
    )
    return MaskedBatches(config, dataset.train, dataset.tokenizer, head == "pretraining")


def originals(batch):
    """The ids before tokens were hidden."""
    ids = batch["ids"].copy()
    rows, columns = np.nonzero(batch["weights"])
    ids[rows, batch["places"][rows, columns]] = batch["targets"][rows, columns]
    return ids


def test_a_row_is_one_document_between_its_marks(dataset):
    batches = batches_of(dataset, "lm")
    for step in range(3):
        batch = batches.train_batch(step)
        for ids, mask in zip(originals(batch), batch["attention_mask"], strict=True):
            row = ids[mask == 1].tolist()
            assert row[0] == dataset.tokenizer.cls_id
            assert row[-1] == dataset.tokenizer.sep_id
            assert dataset.tokenizer.decode(row) in {
                dataset.tokenizer.decode(dataset.tokenizer.encode(text)) for text in TEXTS
            }
            assert (ids[mask == 0] == dataset.tokenizer.pad_id).all()


def test_a_pair_is_cut_at_the_end_of_a_sentence_and_half_are_of_two_documents(dataset):
    batches, tokenizer = batches_of(dataset, "pretraining"), dataset.tokenizer
    known = {tuple(tokenizer.encode(text)) for text in TEXTS}
    answers = []
    for step in range(100):
        batch = batches.train_batch(step)
        parts = zip(originals(batch), batch["token_type_ids"], batch["next_sentence"], strict=True)
        for ids, types, unrelated in parts:
            first = ids[(types == 0) & (ids != tokenizer.pad_id)][1:-1]
            second = ids[types == 1][:-1]
            assert tokenizer.decode(first).endswith("。")
            assert ((*first, *second) in known) == (not unrelated)
            answers.append(unrelated)
    assert abs(np.mean(answers) - 0.5) < 4 * 0.5 / len(answers) ** 0.5


def test_a_row_alone_in_its_batch_keeps_its_second_part(dataset):
    batches = batches_of(dataset, "pretraining", batch_size=1)
    assert not any(batches.train_batch(step)["next_sentence"][0] for step in range(20))


def test_a_second_part_from_elsewhere_is_another_documents(dataset):
    batches = batches_of(dataset, "pretraining")
    documents = (0, 0, 1, 1)  # of tokens below and from 20 on
    windows = [Window(np.arange(10, 18, dtype=np.int32) + 10 * d, d) for d in documents]
    for step in range(20):
        rows, unrelated = batches._pair(windows, np.random.default_rng(step))
        for (first, second), apart in zip(rows, unrelated, strict=True):
            assert (first[0] // 10 != second[0] // 10) == apart


def test_rows_that_fill_a_batch_up_hold_nothing_to_guess(dataset):
    (batch,) = batches_of(dataset, "pretraining").eval_batches(64)
    shown = batch["weights"].sum(axis=1) > 0
    assert shown.sum() == len(TEXTS)
    assert len(shown) > len(TEXTS)
    assert not (batch["token_type_ids"][~shown] * (batch["ids"][~shown] > 5)).any()
