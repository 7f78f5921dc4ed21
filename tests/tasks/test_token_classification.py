import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlm.data import DataError
from jaxlm.tasks import TASKS
from jaxlm.tasks.token_classification import entities, spaced, word_places
from jaxlm.tokenizer import Tokenizer
from tests.tasks.fixtures import bert_tokenizer, columns, gpt_tokenizer, make_task, read
from tests.tokenizer.backends import llama
from tests.tokenizer.folders import FORMS, write

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
    score = np.e / (np.e + 2)
    found = {"type": "LOC", "text": "Paris", "score": pytest.approx(score, abs=1e-6)}
    assert answer["entities"] == [found] * 4
    assert "offsets" not in answer
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
    found = entities(words, tags, [0.5, 1, 1, 1, 1, 1])
    assert [e["text"] for e in found] == ["Ann Lee", "New York", "Rome"]
    assert [e["score"] for e in found] == [0.75, 1, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ann lives in Paris.", "Ann lives in Paris ."),
        ('(Paris), he said: "Rome!"', '( Paris ) , he said : " Rome ! "'),
        ("J. Smith of the U.S. doesn't", "J. Smith of the U.S. doesn't"),
        ("well-known e-mail a.b@c.com...", "well-known e-mail a.b@c.com . . ."),
        ("在《巴黎》，Ann来了。", "在 《 巴 黎 》 ， Ann 来 了 。"),
        ("$5 is 100%", "$ 5 is 100 %"),
        ("हिन्दी की।", "हिन्दी की ।"),
        ("  \n ", ""),
    ],
)
def test_punctuation_at_the_edges_of_words_stands_apart(text, words):
    places = word_places(text)
    assert [text[a:b] for a, b in places] == words.split()


@given(st.text(max_size=40))
def test_words_and_the_blanks_between_them_are_the_text(text):
    places = word_places(text)
    assert all(a < b for a, b in places)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(places))
    between = zip([0, *(b for _, b in places)], [*(a for a, _ in places), len(text)], strict=True)
    assert not "".join(text[a:b] for a, b in between).strip()


def answer_of(task, text, tags):
    """The answer to a text where the model gives its words these tags."""
    items = read(TASK, [{"tokens": text}], replace(DATA, label_column=None), labelled=False)
    outputs = []
    for example in task.encode(items, labelled=False):
        words, places = example.note
        logits = np.zeros((len(example), len(LABELS)))
        logits[places, [LABELS.index(tags[word]) for word in words]] = 5
        outputs.append((example, logits))
    return task.answer(items, outputs)[0]


def test_entities_of_a_text_tell_their_characters_and_a_score():
    text = "  the cat\tsat in New Paris."
    task = make_task(TASK, bert_tokenizer(), limit=8, labels=LABELS)
    answer = answer_of(task, text, ["O", "O", "O", "O", "B-LOC", "I-LOC", "O"])
    assert [text[a:b] for a, b in answer["offsets"]] == answer["words"]
    (entity,) = answer["entities"]
    assert text[entity["start"] : entity["end"]] == entity["text"] == "New Paris"
    assert entity["score"] == pytest.approx(np.exp(5) / (np.exp(5) + 2), abs=1e-6)


def test_what_is_cleaned_off_a_text_moves_no_character():
    assert TASKS[TASK].exact(replace(DATA, label_column=None)) == ("tokens",)
    assert TASKS[TASK].exact(DATA) == ()
    data = replace(DATA, label_column=None, normalize="NFKC")
    (item,) = read(TASK, [{"tokens": "\ufeffＰａｒｉｓ ..\r\na"}], data, labelled=False)
    assert item.content[-4:] == ("Paris", ".", ".", "a")
    assert item.label[-1] == (11, 12)


def test_a_word_begins_with_one_mark_of_space():
    tokenizer = Tokenizer(llama())
    task = make_task(TASK, tokenizer, limit=64, labels=LABELS)
    words = ["hello", "world", "he"]
    (example,) = task.encode(read(TASK, [{"tokens": words, "tags": ["O"] * 3}], DATA))
    tokens = [tokenizer.backend.id_to_token(i) for i in example.tokens["ids"]]
    assert tokens == ["<s>", "▁hello", "▁world", "▁", "he"]


@pytest.mark.parametrize(("trunk", "read_at"), [("encoder", [1, 2, 3]), ("decoder", [1, 2, 4])])
def test_a_decoder_is_read_where_it_has_seen_the_word(trunk, read_at):
    tokenizer = Tokenizer(llama())
    task = TASKS[TASK](tokenizer, 64, LABELS, architecture=trunk)
    row = {"tokens": ["hello", "world", "he"], "tags": ["O", "O", "B-LOC"]}
    (example,) = task.encode(read(TASK, [row], DATA))
    assert np.flatnonzero(example.tokens["weights"]).tolist() == read_at
    assert example.tokens["targets"][read_at].tolist() == [2, 2, 0]


@pytest.mark.parity
@pytest.mark.parametrize("form", ["llama: whole file", "llama: legacy", "xlm: whole file"])
def test_words_are_encoded_as_transformers_encodes_them(form, tmp_path):
    import transformers

    folder = write(tmp_path, FORMS[form]())
    words = ["hello", "world", "天", "he's", "today."]
    expected = transformers.AutoTokenizer.from_pretrained(folder)(words, is_split_into_words=True)
    task = make_task(TASK, Tokenizer.load(folder), limit=64, labels=LABELS)
    (example,) = task.encode(read(TASK, [{"tokens": words, "tags": ["O"] * 5}], DATA))
    assert example.tokens["ids"].tolist() == expected["input_ids"]
