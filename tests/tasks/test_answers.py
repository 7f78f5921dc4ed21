import itertools

import numpy as np
import pytest

from jaxlm.data import DataError
from tests.tasks.fixtures import bert_tokenizer, columns, gpt_tokenizer, make_task, read

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
    assert task.score(items, [answer]) == {"f1": 1.0, "exact_match": 1.0}


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
    ):
        (item,) = read(TASK, [row() | {"answers": answers}], DATA)
        assert item.label == (("Rome", start),)
    (item,) = read(TASK, [row() | {"answers": {"text": [], "answer_start": []}}], DATA)
    assert item.label == ()


def test_an_answer_that_is_not_there_is_told_with_its_row():
    with pytest.raises(DataError, match="row 1: the answer 'Rome' does not stand"):
        read(TASK, [row(answer_start=[3])], DATA)
    with pytest.raises(DataError, match="row 1: the answer 'Oslo'"):
        read(TASK, [row() | {"answers": "Oslo"}], DATA)
