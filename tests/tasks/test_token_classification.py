import numpy as np
import pytest

from jaxlm.data import DataError
from jaxlm.tasks.token_classification import entities, spaced
from tests.tasks.fixtures import bert_tokenizer, columns, gpt_tokenizer, make_task, read

TASK = "token_classification"
DATA = columns("tokens", label="tags")
LABELS = ("B-LOC", "I-LOC", "O")
WORDS = ["the", "cat", "sat", "in", "Paris"]
TAGS = ["O", "O", "O", "O", "B-LOC"]


@pytest.mark.parametrize("tokenizer", [bert_tokenizer(), gpt_tokenizer()])
def test_the_first_token_of_each_word_has_its_tag(tokenizer):
    task = make_task(TASK, tokenizer, labels=LABELS)
    (example,) = task.encode(read(TASK, [{"tokens": WORDS, "tags": TAGS}], DATA))
    starts = np.flatnonzero(example.tokens["weights"])
    assert [LABELS[i] for i in example.tokens["targets"][starts]] == TAGS
    shown = [tokenizer.decode(i[None]).strip(" #") for i in example.tokens["ids"][starts]]
    assert all(word.startswith(piece) for word, piece in zip(WORDS, shown, strict=True))
    # All tokens together are the text.
    assert tokenizer.decode(example.tokens["ids"]) == " ".join(WORDS)


def test_a_long_text_goes_through_in_parts_and_every_word_is_tagged():
    task = make_task(TASK, bert_tokenizer(), limit=8, labels=LABELS)
    items = read(TASK, [{"tokens": WORDS * 4, "tags": TAGS * 4}], DATA)
    examples = task.encode(items)
    assert len(examples) > 2
    assert max(map(len, examples)) <= 8
    outputs = []
    for example in examples:
        logits = np.zeros((len(example), 3))
        logits[np.arange(len(example)), example.tokens["targets"]] = 1
        outputs.append((example, logits))
    (answer,) = task.answer(items, outputs)
    assert answer["tags"] == TAGS * 4
    assert answer["entities"] == [{"type": "LOC", "text": "Paris"}] * 4
    assert task.score_answers(items, [answer])["entity_f1"] == 1
    assert task.notes["texts_in_parts"] == 1


def test_words_and_tags_may_be_texts():
    (spaces,) = read(TASK, [{"tokens": "in Paris", "tags": "O B-LOC"}], DATA)
    assert spaces.content == ("in", "Paris")
    (characters,) = read(TASK, [{"tokens": "在巴黎", "tags": "O B-LOC I-LOC"}], DATA)
    assert characters.content == ("在", "巴", "黎")
    with pytest.raises(DataError, match="row 1 has 3 tags for 2 words"):
        read(TASK, [{"tokens": ["a", "b"], "tags": "O O O"}], DATA)


def test_null_among_tags_is_told_with_its_row():
    with pytest.raises(DataError, match="row 1 has null in a list of words or tags"):
        read(TASK, [{"tokens": ["a", "b"], "tags": ["O", None]}], DATA)


def test_a_row_without_words_is_left_out_whatever_its_tags():
    assert (
        read(TASK, [{"tokens": [], "tags": ["O"]}, {"tokens": " ", "tags": "O"}], DATA)
        == [None] * 2
    )


def test_words_between_spaces_are_the_same_with_and_without_tags():
    row = {"tokens": "U.S. stocks don't fall", "tags": "O O O O"}
    apart = [read(TASK, [row], DATA, labelled=labelled)[0].content for labelled in (True, False)]
    assert apart[0] == apart[1] == ("U.S.", "stocks", "don't", "fall")


def test_text_without_tags_is_taken_apart_into_words():
    (item,) = read(TASK, [{"tokens": "在《巴黎》。with Ann"}], DATA, labelled=False)
    assert item.content == ("在", "《", "巴", "黎", "》", "。", "with", "Ann")


def test_no_space_stands_between_chinese_characters():
    assert "".join(spaced(["我", "在", "Paris", "and", "Rome"])) == "我在Paris and Rome"


def test_entities_are_put_together_from_their_tags():
    words = ["Ann", "Lee", "saw", "New", "York", "Rome"]
    tags = ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "B-LOC"]
    assert [e["text"] for e in entities(words, tags)] == ["Ann Lee", "New York", "Rome"]
