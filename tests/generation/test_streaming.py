"""Text in pieces: whole characters, stop strings across token borders, the same text in the end."""

import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers

from jaxlm.artifact import Loaded
from jaxlm.generation import explain, generate, stream
from jaxlm.generation.detokenizing import Detokenizer
from jaxlm.tokenizer import Tokenizer, train_tokenizer
from tests.fixtures.tiny import tiny_model

WORDS = ["the cat walks and talks, the dog walked and talked. 今天天气真好，我们写代码😀"] * 9


@pytest.fixture(scope="module")
def by_bytes() -> Tokenizer:
    return train_tokenizer("bpe", WORDS, vocab_size=256)  # one token a byte


@pytest.fixture(scope="module")
def loaded(by_bytes) -> Loaded:
    model, variables = tiny_model("learned", vocab_size=by_bytes.vocab_size, max_seq_len=64)
    return Loaded(model, variables["params"], by_bytes, model.config)


def chinese() -> Tokenizer:
    """Words of a BERT vocabulary."""
    words = ["[UNK]", "[CLS]", "[SEP]", *"今天气真好我们，。'imnt", "code", "##r", "do"]
    backend = Backend(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    return Tokenizer(backend)


def pieces(tokenizer: Tokenizer, ids: list[int], size: int, stops=()) -> list[str]:
    text = Detokenizer(tokenizer, ids[:1], stops)
    found = [text.push(ids[i : i + size]) for i in range(1, len(ids), size)]
    return [*found, text.finish()]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_pieces_are_whole_characters_and_join_to_the_text(by_bytes, size):
    text = "the dog 今天😀 talks 好"
    found = pieces(by_bytes, by_bytes.encode(text), size)
    assert "".join(found) == text[1:]
    assert not any("\ufffd" in piece for piece in found)


@pytest.mark.parametrize("size", [1, 3, 50])
def test_bytes_that_are_no_character_show_as_marks_and_lose_nothing_behind(by_bytes, size):
    broken, whole = by_bytes.encode("天")[:1], by_bytes.encode("好 a")
    ids = by_bytes.encode("a") + 3 * broken + whole + broken
    assert "".join(pieces(by_bytes, ids, size)) == by_bytes.decode(ids)[1:]


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize(
    ("stops", "left"),
    [
        (["talk"], "he cat walks and "),
        (["walks and", "cat"], "he "),
        (["t w"], "he ca"),
        (["talkers"], "he cat walks and talks"),
        (["", "天"], "he cat walks and talks"),
    ],
)
def test_a_text_ends_before_the_first_stop_string(by_bytes, size, stops, left):
    ids = by_bytes.encode("the cat walks and talks")
    assert "".join(pieces(by_bytes, ids, size, stops)) == left


def test_chinese_words_come_without_spaces_and_others_with_them():
    tokenizer = chinese()
    ids = [1, *tokenizer.encode("今天天气真好，我们 coder 。")]
    assert tokenizer.decode(ids) != "今天天气真好，我们coder。"
    for size in (1, 4):
        assert "".join(pieces(tokenizer, ids, size)) == "今天天气真好，我们coder。"


def test_a_word_that_later_tokens_join_is_not_given_out_too_early():
    tokenizer = chinese()
    ids = [1, *tokenizer.encode("i don't code, i'm code code")]
    assert "".join(pieces(tokenizer, ids, 1)) == tokenizer.decode(ids)


@pytest.mark.parametrize("stops", [(), ("\u2023", "a", "7")], ids=["free", "stopped"])
def test_a_stream_joins_to_what_generate_returns(loaded, stops):
    settings = {"max_new_tokens": 100, "temperature": 1.0, "seed": 2, "stop_strings": stops}
    found = list(stream(loaded, "the cat", **settings))
    assert generate(loaded, ["the cat"], **settings) == ["".join(found)]
    assert all(found)
    if not stops:
        assert len(found) > 5


def test_rows_stop_at_their_own_strings_and_are_those_without_them_cut(loaded):
    prompts = ["the cat", "a", "天气"]
    settings = {"max_new_tokens": 60, "temperature": 1.0, "seed": 7}
    free = generate(loaded, prompts, **settings)
    stop = free[0][20]
    stopped = generate(loaded, prompts, **settings, stop_strings=[stop])
    assert stopped == [text.split(stop)[0] for text in free]


def test_probabilities_are_the_models_own(loaded):
    (tokens,) = explain(loaded, ["the cat"], num_others=4, max_new_tokens=3, temperature=0.0)
    ids = loaded.tokenizer.encode("the cat")
    for token in tokens:
        logits = loaded.model.apply({"params": loaded.params}, jnp.asarray([ids]))[0, -1]
        probabilities = np.exp(np.asarray(logits, np.float64))
        probabilities /= probabilities.sum()
        best = np.argsort(-probabilities)
        assert token.probability == pytest.approx(probabilities[best[0]], rel=1e-4)
        shown = [p for _, p in token.others]
        np.testing.assert_allclose(shown, probabilities[best[1:5]], rtol=1e-4)
        ids = [*ids, int(best[0])]
