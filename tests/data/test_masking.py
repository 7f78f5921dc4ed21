"""Masks: the share asked for, never a special token, whole words together, the same again."""

import numpy as np
import pytest

from jaxlm.config import ConfigError, TaskConfig
from jaxlm.data import DataError
from jaxlm.data.masking import MaskingVocabulary, mask_rows, word_starts
from jaxlm.tokenizer import SPECIAL_TOKENS, train_tokenizer

TEXT = "今天天气真好，我们去公园玩。the quick brown foxes jumped over lazy dogs unbelievably. " * 30


@pytest.fixture(scope="module")
def vocabulary():
    return MaskingVocabulary.of(train_tokenizer("wordpiece", [TEXT], 90, SPECIAL_TOKENS))


def rows_of(vocabulary, num=400, length=42):
    """Rows of ordinary tokens between [CLS] and [SEP], every second one padded."""
    random = np.random.default_rng(0)
    ordinary = np.flatnonzero(~vocabulary.special & ~vocabulary.continues)
    ids = random.choice(ordinary, (num, length)).astype(np.int32)
    ids[:, 0], ids[:, -1] = vocabulary.cls, vocabulary.sep
    ids[1::2, length * 3 // 4 :] = vocabulary.pad
    return ids


def masked(vocabulary, ids, seed=0, **settings):
    config = TaskConfig(name="masked_lm", **settings)
    return mask_rows(ids, vocabulary, config, np.random.default_rng(seed))


@pytest.mark.parametrize("masking", ["token", "word", "span"])
def test_the_share_of_each_row_is_hidden_and_no_special_token(vocabulary, masking):
    ids = rows_of(vocabulary)
    out = masked(vocabulary, ids, masking=masking)
    weights, places = out["weights"], out["places"]
    real = (~vocabulary.special[ids]).sum(axis=1)
    np.testing.assert_array_equal(weights.sum(axis=1), np.maximum(1, np.round(0.15 * real)))
    rows, columns = np.nonzero(weights)
    at = places[rows, columns]
    assert not vocabulary.special[ids[rows, at]].any()
    np.testing.assert_array_equal(out["targets"][rows, columns], ids[rows, at])
    assert len(set(zip(rows.tolist(), at.tolist(), strict=True))) == len(rows)
    untouched = np.ones_like(ids, bool)
    untouched[rows, at] = False
    np.testing.assert_array_equal(out["ids"][untouched], ids[untouched])


def test_of_the_hidden_tokens_80_10_10_percent_are_masked_replaced_and_kept(vocabulary):
    ids = rows_of(vocabulary, num=4000)
    out = masked(vocabulary, ids)
    rows, columns = np.nonzero(out["weights"])
    seen = out["ids"][rows, out["places"][rows, columns]]
    targets = out["targets"][rows, columns]
    shares = [(seen == vocabulary.mask).mean(), (seen == targets).mean()]
    ordinary = (~vocabulary.special).sum()
    expected = [0.8, 0.1 + 0.1 / ordinary]
    errors = np.sqrt(np.multiply(expected, np.subtract(1, expected)) / len(rows))
    assert np.all(np.abs(np.subtract(shares, expected)) < 4 * errors)
    assert not vocabulary.special[seen[seen != vocabulary.mask]].any()


def test_shares_are_settings(vocabulary):
    ids = rows_of(vocabulary, num=50)
    all_masked = masked(vocabulary, ids, mask_fraction=0.5, mask_share=1.0, random_share=0.0)
    rows, columns = np.nonzero(all_masked["weights"])
    assert (all_masked["ids"][rows, all_masked["places"][rows, columns]] == vocabulary.mask).all()
    assert all_masked["places"].shape == (50, 21)
    with pytest.raises(ConfigError, match="random_share must be at most"):
        TaskConfig(mask_share=0.95, random_share=0.1)


def test_whole_words_are_hidden_together(vocabulary):
    start = np.flatnonzero(~vocabulary.special & ~vocabulary.continues)
    more = np.flatnonzero(vocabulary.continues)
    tokens = [start[0], more[0], more[1], start[1], more[2], start[2]]
    row = np.array([[vocabulary.cls, *tokens * 6, vocabulary.sep]], np.int32)
    for seed in range(40):
        out = masked(vocabulary, row, seed, masking="word")
        hidden = set(out["places"][0][out["weights"][0] > 0].tolist())
        for word in ({1, 2, 3}, {4, 5}, {6}):
            for shift in range(0, 36, 6):
                shifted = {place + shift for place in word}
                assert shifted <= hidden or not shifted & hidden


def test_a_segmenter_joins_chinese_characters_to_words_and_nothing_else(vocabulary):
    tokenizer = train_tokenizer("wordpiece", [TEXT], 300, SPECIAL_TOKENS)
    vocabulary = MaskingVocabulary.of(tokenizer)
    config = TaskConfig(name="masked_lm", masking="word", segmenter="jieba")

    def words(ids):
        candidates = np.flatnonzero(~vocabulary.special[ids])
        starts = word_starts(np.array(ids), candidates, vocabulary, config)
        pieces = np.split(np.array(ids)[candidates], np.flatnonzero(starts)[1:])
        return [tokenizer.decode(piece).replace(" ", "") for piece in pieces]

    assert words(tokenizer.encode("the quick 今天天气 fox，公园")) == [
        "the", "quick", "今天天气", "fox", "，", "公园",
    ]  # fmt: skip
    today, unknown, weather = tokenizer.encode("今天"), tokenizer.unk_id, tokenizer.encode("气")
    assert words([*today, unknown, *weather]) == ["今天", "气"]


def test_spans_hide_words_in_a_row(vocabulary):
    ids = rows_of(vocabulary, num=400, length=122)[::2]

    def runs(masking):
        out = masked(vocabulary, ids, masking=masking)
        places = np.where(out["weights"] > 0, out["places"], -9)
        return (np.diff(places, axis=1) == 1).mean()

    assert runs("span") > 2 * runs("word")


def test_the_same_seed_hides_the_same(vocabulary):
    ids = rows_of(vocabulary, num=5)
    first, again, other = (masked(vocabulary, ids, seed) for seed in (3, 3, 4))
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    assert not np.array_equal(first["places"], other["places"])


def test_a_vocabulary_without_a_mask_is_told():
    with pytest.raises(DataError, match=r"masked_lm needs \[PAD\], \[CLS\], \[SEP\], \[MASK\]"):
        MaskingVocabulary.of(train_tokenizer("char", ["abc"]))
