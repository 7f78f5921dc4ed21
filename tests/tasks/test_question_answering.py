import itertools

import numpy as np
import pytest
from tokenizers import processors

from jaxlm.data import DataError
from jaxlm.tasks.examples import Joiner
from jaxlm.tokenizer import Tokenizer, train_tokenizer
from tests.tasks.fixtures import TEXT, bert_tokenizer, columns, gpt_tokenizer, make_task, read
from tests.tokenizer.backends import llama

TASK = "question_answering"
DATA = columns("question", "context", "answers")
CONTEXT = "the cat sat on the mat in Paris. " * 3 + "the dog ran to Rome"


def row(answer="Rome", **place):
    start = CONTEXT.index(answer)
    answers = {"text": [answer], "answer_start": [start]} | place
    return {"question": "the dog ran to", "context": CONTEXT, "answers": answers}


@pytest.mark.parametrize("tokenizer", [bert_tokenizer(), gpt_tokenizer()])
def test_windows_cover_the_context_and_one_holds_the_answer(tokenizer):
    task = make_task(TASK, tokenizer, limit=24, stride=6)
    items = read(TASK, [row()], DATA)
    examples = task.encode(items)
    assert len(examples) > 2
    assert max(map(len, examples)) <= 24
    spans = [(e.note[1][0][0], e.note[1][-1][1]) for e in examples]
    assert spans[0][0] == 0
    assert spans[-1][1] == len(CONTEXT)
    assert all(right[0] < left[1] for left, right in itertools.pairwise(spans))
    held = [e for e in examples if e.row["start"] > 0]
    assert held
    for example in held:
        second, offsets = example.note
        first, last = (int(example.row[name]) - second for name in ("start", "end"))
        assert CONTEXT[offsets[first][0] : offsets[last][1]].strip() == "Rome"


def test_the_best_passage_of_all_windows_is_the_answer():
    task = make_task(TASK, bert_tokenizer(), limit=24, stride=6)
    items = read(TASK, [row()], DATA)
    outputs = []
    for example in task.encode(items):
        logits = np.zeros((2, len(example)))
        logits[0, example.row["start"]] = logits[1, example.row["end"]] = 3.0
        # Higher still, but on the question, before the context: no passage of it.
        logits[:, 1] = 9.0
        outputs.append((example, tuple(logits)))
    (answer,) = task.answer(items, outputs)
    assert answer["answer"] == "Rome"
    assert answer["start"] == CONTEXT.index("Rome")
    assert task.score_answers(items, [answer]) == {"f1": 1.0, "exact_match": 1.0}


def test_no_answer_is_given_where_nowhere_is_likelier():
    task = make_task(TASK, bert_tokenizer(), limit=64)
    items = read(TASK, [row()], DATA)
    (example,) = task.encode(items)
    logits = np.zeros((2, len(example)))
    logits[:, 0] = 5
    (answer,) = task.answer(items, [(example, tuple(logits))])
    assert (answer["answer"], answer["start"]) == ("", -1)


def test_an_answer_is_no_longer_than_told_and_does_not_end_before_it_starts():
    task = make_task(TASK, bert_tokenizer(), limit=64, max_answer_tokens=2)
    items = read(TASK, [row()], DATA)
    (example,) = task.encode(items)
    second = example.note[0]
    logits = np.zeros((2, len(example)))
    logits[0, second + 4] = logits[1, second + 1] = 5  # backwards
    logits[0, second + 6] = logits[1, second + 7] = 4.9
    (answer,) = task.answer(items, [(example, tuple(logits))])
    offsets = example.note[1]
    assert answer["answer"] == CONTEXT[offsets[6][0] : offsets[7][1]]


def test_answers_come_in_the_usual_layouts():
    start = CONTEXT.index("Rome")
    for answers in (
        {"text": ["Rome"], "answer_start": [start]},
        [{"text": "Rome", "answer_start": start}],
        "Rome",
        ["Rome"],
        {"text": "Rome", "answer_start": start},
        {"text": ["Rome"], "answer_start": start},
        {"text": ["Rome"], "answer_start": [str(start)]},
        {"text": ["Rome"], "answer_start": [float(start)]},
        {"text": ["Rome"], "answer_start": None},
    ):
        (item,) = read(TASK, [row() | {"answers": answers}], DATA)
        assert item.label == (("Rome", start),)
    for none in ({"text": [], "answer_start": []}, {"text": None, "answer_start": None}, [], ""):
        (item,) = read(TASK, [row() | {"answers": none}], DATA)
        assert item.label == ()
    year = {"question": "when", "context": "in 1998", "answers": [1998]}
    assert read(TASK, [year], DATA)[0].label == (("1998", 3),)


def test_an_answer_that_is_not_there_is_told_with_its_row():
    with pytest.raises(DataError, match="row 1: the answer 'Rome' is not in the context"):
        read(TASK, [row(answer_start=[3])], DATA)
    with pytest.raises(DataError, match="row 1: the answer 'Oslo'"):
        read(TASK, [row() | {"answers": "Oslo"}], DATA)


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["Rome"], "answer_start": ["here"]},
        {"text": ["Rome"], "answer_start": [1.5]},
        {"text": ["Rome"], "answer_start": [[1]]},
        {"text": [["Rome"]]},
        {"answer": "Rome"},
    ],
)
def test_an_answer_in_no_known_layout_is_told_with_its_row(answers):
    with pytest.raises(DataError, match=r"row 1.*(answer_start|should be)"):
        read(TASK, [row() | {"answers": answers}], DATA)


@pytest.mark.parametrize("edge", [" ", "\n", "\u200b"])
def test_blanks_around_an_answer_do_not_belong_to_it(edge):
    context = f"ran to{edge}Rome{edge}in Paris"
    answers = {"text": [f"{edge}Rome{edge}"], "answer_start": [6]}
    task = make_task(TASK, gpt_tokenizer())
    items = read(TASK, [{"question": "the dog", "context": context, "answers": answers}], DATA)
    assert items[0].label == (("Rome", 7),)
    (example,) = task.encode(items)
    second, offsets = example.note
    first, last = (int(example.row[name]) - second for name in ("start", "end"))
    assert first >= 0
    assert context[offsets[first][0] : offsets[last][1]].strip(f" {edge}") == "Rome"


def test_an_answer_whose_last_character_the_tokenizer_drops_is_learned():
    answers = {"text": ["Rome\u00ad"], "answer_start": [4]}
    row = {"question": "where", "context": "the Rome\u00ad in Paris", "answers": answers}
    (example,) = make_task(TASK, bert_tokenizer()).encode(read(TASK, [row], DATA))
    assert 0 < example.row["start"] <= example.row["end"]


def test_an_answer_longer_than_every_window_is_counted():
    task = make_task(TASK, bert_tokenizer(), limit=14)
    task.encode(read(TASK, [row("cat sat on the mat in Paris. the cat sat"), row()], DATA))
    assert task.notes["answers_in_no_window"] == 1


def test_windows_share_no_more_than_half():
    task = make_task(TASK, bert_tokenizer(), limit=64, stride=64)
    long = row() | {"context": CONTEXT * 8, "answers": ""}
    examples = task.encode(read(TASK, [long], DATA))
    tokens = len(task.tokenizer.encode(long["context"]))
    room = max(len(example.note[1]) for example in examples)
    assert len(examples) <= 2 * tokens / room


def test_a_context_of_no_tokens_has_no_answer():
    task = make_task(TASK, bert_tokenizer())
    items = read(TASK, [row() | {"context": "\u200b", "answers": ""}], DATA)
    outputs = [(e, (np.zeros(len(e)), np.zeros(len(e)))) for e in task.encode(items)]
    assert task.answer(items, outputs) == [{"answer": "", "start": -1, "score": None}]


def test_a_context_keeps_its_characters_where_half_a_pair_stands():
    (item,) = read(TASK, [row() | {"context": f"\ud800 {CONTEXT}", "answers": "Rome"}], DATA)
    assert item.content[1] == f"\ufffd {CONTEXT}"
    make_task(TASK, bert_tokenizer()).encode([item])


@pytest.mark.parametrize(
    "tokenizer",
    [gpt_tokenizer(), Tokenizer(llama()), train_tokenizer("unigram", TEXT, 340), bert_tokenizer()],
)
def test_an_answer_begins_at_its_first_letter(tokenizer):
    task = make_task(TASK, tokenizer, limit=200)
    context = "the cat sat in Paris, the dog in Rome"
    row = {"question": "the dog", "context": context, "answers": "Rome"}
    items = read(TASK, [row], DATA)
    (example,) = task.encode(items)
    logits = np.zeros((2, len(example)))
    logits[0, example.row["start"]] = logits[1, example.row["end"]] = 3.0
    (answer,) = task.answer(items, [(example, tuple(logits))])
    assert (answer["answer"], answer["start"]) == ("Rome", context.index("Rome"))


def test_blanks_alone_are_no_answer():
    task = make_task(TASK, gpt_tokenizer(), limit=64)
    items = read(TASK, [{"question": "a", "context": "b\n\nc", "answers": ""}], DATA)
    (example,) = task.encode(items)
    logits = np.zeros((2, len(example)))
    logits[:, example.note[0] + 1] = 3.0
    (answer,) = task.answer(items, [(example, tuple(logits))])
    assert (answer["answer"], answer["start"]) == ("", -1)


def test_something_stands_between_the_texts_of_a_pair_whatever_the_post_processor():
    plain, trimming = gpt_tokenizer(), gpt_tokenizer()
    trimming.backend.post_processor = processors.ByteLevel(trim_offsets=True)
    template = gpt_tokenizer()
    template.backend.post_processor = processors.TemplateProcessing("$A", "$A $B:1", [])
    left, right = plain.encode("the cat"), plain.encode("the dog")
    expected = Joiner(plain, 64).two(left, right)
    assert plain.decode(expected.ids) == "the cat\nthe dog"
    for tokenizer in (trimming, template):
        assert Joiner(tokenizer, 64).two(left, right) == expected
