"""Text in pieces: whole characters, stop strings across token borders, the same text in the end."""

import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers

from jaxlm.artifact import Loaded
from jaxlm.config import JaxlmError
from jaxlm.generation import explain, generate, generate_tokens, stream, text_batch
from jaxlm.generation.detokenizer import Detokenizer, readable_text
from jaxlm.generation.text_batch import check_texts
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


def chinese(*more: str) -> Tokenizer:
    """Words of a BERT vocabulary."""
    words = ["[UNK]", "[CLS]", "[SEP]", *"今天气真好我们，。'imnt", "code", "##r", "do", *more]
    backend = Backend(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    return Tokenizer(backend)


def pieces(tokenizer: Tokenizer, ids: list[int], size: int, stops=(), cut: int = 1) -> list[str]:
    """The text behind the first `cut` tokens, given out as so many at a time come."""
    text = Detokenizer(tokenizer, ids[:cut], stops)
    found = [text.push(ids[i : i + size]) for i in range(cut, len(ids), size)]
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


def test_words_come_at_once_with_the_spacing_that_they_keep():
    # What the decoder joins, it joins by a token alone.
    tokenizer = chinese("n't", "'m", "'s", "s", ".", "?", "not")
    words = ["do", "n't", "i", "'", "m", ".", "今", "'m", "'", "s", "code", "##r", "?", "do", "not"]
    ids = [1, *(tokenizer.backend.get_vocab()[word] for word in words)]
    found = pieces(tokenizer, ids, 1)
    assert "".join(found) == readable_text(tokenizer, ids)
    assert all(found[:-1])
    assert found[-1] == ""


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("size", [1, 3, 8, 64])
def test_characters_of_many_tokens_are_whole_however_long_the_text(kind, size):
    # Tokens of these vocabularies are English; all else is written in bytes.
    english = ["the cat walks and talks, the dog walked and talked. cats and dogs"] * 9
    tokenizer = train_tokenizer(kind, english, vocab_size=400)
    for prompt in ("the cat ", "今天天气真好我们写代码天天好"):
        for more in ("今天", "天气真好我们写代码今" * 5, "好😀👨‍👩‍👧a" * 4):
            ids, cut = tokenizer.encode(prompt + more), len(tokenizer.encode(prompt))
            assert tokenizer.decode(ids) == prompt + more
            found = pieces(tokenizer, ids, size, cut=cut)
            assert "".join(found) == more
            assert not any("\ufffd" in piece for piece in found)


@pytest.fixture(scope="module")
def spoken(loaded) -> str:
    """What the model's new tokens are in one piece, without any looking on the way."""
    ids = np.array([loaded.tokenizer.encode("the cat")])
    new = generate_tokens(loaded.model, loaded.params, ids, **SPOKEN)
    return loaded.tokenizer.decode(new[0])


SPOKEN = {"max_new_tokens": 100, "temperature": 1.0, "seed": 2}


@pytest.mark.parametrize("stops", [(), ("\u2023", "a", "7")], ids=["free", "stopped"])
def test_a_stream_joins_to_what_generate_returns_and_the_tokens_say(loaded, spoken, stops):
    found = list(stream(loaded, "the cat", **SPOKEN, stop_strings=stops))
    places = [spoken.index(stop) for stop in stops if stop in spoken]
    assert "".join(found) == spoken[: min(places, default=None)]
    assert generate(loaded, ["the cat"], **SPOKEN, stop_strings=stops) == ["".join(found)]
    assert all(found)
    if not stops:
        assert len(found) > 5


def test_a_stop_string_does_not_end_a_text_before_its_fewest_tokens(loaded, spoken):
    stop = spoken[5:7]
    assert spoken.index(stop) < 10 < len(spoken)
    settings = SPOKEN | {"stop_strings": [stop], "min_new_tokens": 30}
    (text,) = generate(loaded, ["the cat"], **settings)
    assert text.startswith(spoken[:10])
    ids = loaded.tokenizer.encode("the cat walks and talks")
    whole = "he cat walks and talks"
    for fewest, left in ((4, whole[:8]), (12, whole[:18]), (30, whole)):
        for size in (1, 4, 50):
            detokenizer = Detokenizer(loaded.tokenizer, ids[:1], ["al"], fewest)
            parts = [detokenizer.push(ids[i : i + size]) for i in range(1, len(ids), size)]
            assert "".join(parts) + detokenizer.finish() == left


def test_one_text_is_not_taken_for_a_list_of_stop_strings(by_bytes):
    with pytest.raises(JaxlmError, match="stop_strings must be a list of texts, got 'END'"):
        check_texts("stop_strings", "END")
    with pytest.raises(JaxlmError, match="stop_strings must be a list of texts"):
        check_texts("stop_strings", [["a"], ["b"]])


def test_many_prompts_go_in_batches_and_draw_as_one(loaded, monkeypatch):
    prompts = ["the cat", "a", "天气", "dog", "the dog"]
    settings = {"max_new_tokens": [3, 9, 20, 5, 8], "temperature": 1.0, "seed": 3}
    whole = generate(loaded, prompts, **settings)
    shown = explain(loaded, prompts, **settings)
    sizes = []
    start = text_batch.DecodingBatch
    monkeypatch.setattr(text_batch, "ROWS", 2)
    monkeypatch.setattr(
        text_batch,
        "DecodingBatch",
        lambda *args, **more: sizes.append(len(args[2])) or start(*args, **more),
    )
    assert generate(loaded, prompts, **settings) == whole
    assert sizes == [2, 2, 1]
    again = explain(loaded, prompts, **settings)
    assert [[t.text for t in row] for row in again] == [[t.text for t in row] for row in shown]


def test_explained_tokens_end_with_the_one_that_completes_the_stop_string(loaded, spoken):
    ids = loaded.tokenizer.encode("the cat")
    new = generate_tokens(loaded.model, loaded.params, np.array([ids]), **SPOKEN)[0]
    stops = [c for c in spoken if c.isascii() and spoken.index(c) > 9][:3]
    for stop in stops:
        (tokens,) = explain(loaded, ["the cat"], **SPOKEN, stop_strings=[stop])
        assert stop in loaded.tokenizer.decode(new[: len(tokens)])
        assert stop not in loaded.tokenizer.decode(new[: len(tokens) - 1])


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


def test_a_stop_string_may_be_a_special_token_or_hold_one():
    tokenizer = chinese()
    ids = [*tokenizer.encode("今天气真好"), tokenizer.sep_id, *tokenizer.encode("我们气")]
    for stop, expected in {
        "[SEP]": "天气真好",
        "好[SEP]我": "天气真",
        "[CLS]": "天气真好我们气",
    }.items():
        for size in (1, 3, 20):
            assert "".join(pieces(tokenizer, ids, size, [stop])) == expected
