import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.data import DataError
from jaxlm.data.batches import LengthOrder, padded_length
from jaxlm.tasks.examples import Joiner, balance, in_batches
from tests.tasks.fixtures import bert_tokenizer, columns, gpt_tokenizer, make_task, read

TASK = "sequence_classification"


def test_texts_are_joined_as_the_tokenizer_joins_them():
    tokenizer = bert_tokenizer()
    joiner = Joiner(tokenizer, 64)
    first, second = "the cat sat", "on the mat"
    one, two = tokenizer.backend.encode(first), tokenizer.backend.encode(first, second)
    ids = tokenizer.encode_batch([first, second])
    assert joiner.one(ids[0]).ids == one.ids
    joined = joiner.two(*ids)
    assert (joined.ids, joined.types) == (two.ids, two.type_ids)
    assert joined.second == two.type_ids.index(1)


def test_two_texts_without_a_template_have_a_newline_between_them():
    tokenizer = gpt_tokenizer()
    ids = tokenizer.encode_batch(["the cat", "the dog"])
    assert tokenizer.decode(Joiner(tokenizer, 64).two(*ids).ids) == "the cat\nthe dog"


@pytest.mark.parametrize(
    ("first", "second", "kept"), [(9, 2, (5, 2)), (2, 9, (2, 5)), (9, 9, (4, 3))]
)
def test_of_two_texts_the_longer_one_is_cut(first, second, kept):
    joined = Joiner(bert_tokenizer(), 10).two([7] * first, [8] * second)
    assert (joined.ids.count(7), joined.ids.count(8)) == kept
    assert joined.cut
    assert len(joined.ids) == 10


def test_a_text_longer_than_the_limit_is_cut_and_counted():
    task = make_task(TASK, bert_tokenizer(), limit=8, labels=("a", "b"))
    items = read(
        TASK, [{"text": "the cat " * 9, "label": "a"}, {"text": "dog", "label": "b"}], columns()
    )
    examples = task.encode(items)
    assert [len(e) for e in examples] == [8, len(task.tokenizer.encode("dog")) + 2]
    assert task.notes["texts_cut"] == 1


@pytest.mark.parametrize(
    ("problem", "value", "label"),
    [
        ("single_label", 1, "1"),
        ("single_label", " good ", "good"),
        ("multi_label", "a|b", ("a", "b")),
        ("multi_label", ["b"], ("b",)),
        ("multi_label", "", ()),
        ("regression", "2.5", 2.5),
    ],
)
def test_labels_are_read_as_the_problem_says(problem, value, label):
    (item,) = read(TASK, [{"text": "x", "label": value}], columns(), problem)
    assert item.label == label


@pytest.mark.parametrize(
    ("problem", "value", "message"),
    [
        ("single_label", ["a", "b"], "multi_label"),
        ("regression", "many", "needs a number"),
    ],
)
def test_a_label_that_cannot_be_read_is_told_with_its_row(problem, value, message):
    with pytest.raises(DataError, match=f"row 1, column 'label',.*{message}"):
        read(TASK, [{"text": "x", "label": value}], columns(), problem)


def test_losses_are_those_of_each_problem():
    logits = jnp.array([[0.5, -1.0], [2.0, 0.1]], np.float32)
    weights = jnp.array([1.0, 3.0])

    def mean(problem, targets):
        task = make_task(TASK, bert_tokenizer(), labels=("a", "b"), problem=problem)
        sums = task.row_objective.losses(logits, {"targets": targets, "weights": weights})
        return float(sums["loss"] / sums["count"])

    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -(log_softmax[0, 1] + 3 * log_softmax[1, 0]) / 4
    assert mean("single_label", jnp.array([1, 0])) == pytest.approx(float(expected), abs=1e-6)
    hot = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    chance = 1 / (1 + np.exp(-logits))
    binary = -np.log(np.where(hot > 0, chance, 1 - chance)).mean(axis=1)
    assert mean("multi_label", hot) == pytest.approx(float((binary * weights).sum() / 4), abs=1e-6)
    squares = np.square(logits[:, :1] - 1)[:, 0]
    task = make_task(TASK, bert_tokenizer(), labels=("score",), problem="regression")
    sums = task.row_objective.losses(
        logits[:, :1], {"targets": jnp.ones((2, 1)), "weights": weights}
    )
    assert float(sums["loss"]) == pytest.approx(float((squares * weights).sum()), abs=1e-6)


def test_balanced_classes_weigh_the_same():
    task = make_task(TASK, bert_tokenizer(), labels=("a", "b", "c"))
    rows = [{"text": "cat", "label": label} for label in "aaab"]
    examples = task.encode(read(TASK, rows, columns()))
    balance(examples, num_classes=3)
    weights = [float(example.row["weights"]) for example in examples]
    assert sum(weights[:3]) == pytest.approx(weights[3])
    assert sum(weights) == pytest.approx(4)


def test_lengths_are_padded_to_few_shapes():
    assert {padded_length(n, 100) for n in range(1, 101)} == {32, 64, 100}


def test_an_epoch_shows_every_row_once_and_another_seed_another_order():
    lengths = [i % 7 + 1 for i in range(12)]
    order, again, other = (LengthOrder(lengths, 4, seed) for seed in (0, 0, 1))
    for epoch in range(2):
        assert sorted(order.epoch(epoch).ravel()) == list(range(12))
    assert not np.array_equal(order.epoch(0), order.epoch(1))
    assert not np.array_equal(order.epoch(0), other.epoch(0))
    for step in (5, 2):
        np.testing.assert_array_equal(order.rows(step), again.rows(step))


def test_rows_that_fill_a_batch_up_weigh_nothing():
    task = make_task(TASK, bert_tokenizer(), labels=("a", "b"))
    examples = task.encode(read(TASK, [{"text": "cat", "label": "a"}] * 3, columns()))
    ((batch, chosen),) = in_batches(examples, 4, 32, pad=9)
    assert len(chosen) == 3
    np.testing.assert_array_equal(batch["weights"], [1, 1, 1, 0])
    assert batch["attention_mask"][3].sum() == 1
    assert (batch["ids"][batch["attention_mask"] == 0] == 9).all()


def test_answers_name_labels_and_probabilities():
    task = make_task(TASK, bert_tokenizer(), labels=("bad", "good"))
    items = read(TASK, [{"text": "cat"}], columns(), labelled=False)
    (example,) = task.encode(items, labelled=False)
    (answer,) = task.answer(items, [(example, np.array([0.0, np.log(3.0)]))])
    assert answer["label"] == "good"
    assert answer["probabilities"] == pytest.approx({"bad": 0.25, "good": 0.75})
