import numpy as np
import pytest

from jaxlm.tasks import metrics


def test_f1_is_averaged_over_classes_and_over_decisions():
    truth, found = list("aaabbc"), list("aabbbb")
    scores = metrics.single_label_scores(truth, found, list("abc"))
    assert scores["accuracy"] == scores["micro_f1"] == pytest.approx(4 / 6)
    assert scores["macro_f1"] == pytest.approx((4 / 5 + 2 / 3 + 0) / 3)


def test_several_labels_count_one_by_one():
    scores = metrics.multi_label_scores([("a", "b"), ("b",)], [["a"], ["b"]], ["a", "b"])
    assert scores == pytest.approx({"accuracy": 0.5, "macro_f1": 5 / 6, "micro_f1": 4 / 5})


def test_a_single_one_of_several_labels_is_scored_by_where_it_stands():
    scores = metrics.multi_label_scores([("a",), (), (), ()], [["a"], ["a"], [], []], ["a"])
    assert scores == pytest.approx({"accuracy": 0.75, "macro_f1": 2 / 3, "micro_f1": 2 / 3})
    missed = metrics.multi_label_scores([("a",), (), (), ()], [[], [], [], []], ["a"])
    assert (missed["macro_f1"], missed["micro_f1"]) == (0, 0)


def test_numbers_are_compared_by_their_correlation():
    scores = metrics.number_scores([1, 2, 3, 4], [1, 8, 27, 64])
    assert scores["spearman"] == pytest.approx(1)
    expected = np.corrcoef([1, 2, 3, 4], [1, 8, 27, 64])[0, 1]
    assert scores["pearson"] == pytest.approx(expected)
    assert metrics.number_scores([1, 2], [3, 3]) == {"pearson": 0.0, "spearman": 0.0}


def test_an_entity_counts_as_a_whole():
    truth = [["B-PER", "I-PER", "O", "B-LOC"]]
    found = [["B-PER", "O", "O", "B-LOC"]]
    scores = metrics.tag_scores(truth, found, ["B-PER", "I-PER", "B-LOC", "O"])
    assert scores["entity_f1"] == pytest.approx(0.5)
    assert scores["accuracy"] == pytest.approx(0.75)


def test_units_and_last_words_bound_entities_as_single_ones_and_ends_do():
    labels = ["B-PER", "I-PER", "L-PER", "U-PER", "O"]
    truth = ["U-PER", "U-PER", "O", "B-PER", "L-PER", "B-PER", "I-PER", "L-PER"]
    found = ["U-PER", "O", "O", "B-PER", "L-PER", "B-PER", "I-PER", "L-PER"]
    scores = metrics.tag_scores([truth], [found], labels)
    assert scores["entity_precision"] == 1
    assert scores["entity_recall"] == pytest.approx(3 / 4)


def test_other_tags_are_scored_as_classes():
    scores = metrics.tag_scores([["NOUN", "VERB"]], [["NOUN", "NOUN"]], ["NOUN", "VERB"])
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.parametrize(
    ("truth", "found", "f1", "exact"),
    [
        (["the Eiffel Tower"], "Eiffel tower!", 1, 1),
        (["in Paris"], "Paris", 2 / 3, 0),
        (["北京大学"], "北京", 2 * 2 / 6, 0),
        (["one", "two"], "two", 1, 1),
        ([], "", 1, 1),
        ([], "something", 0, 0),
    ],
)
def test_answers_are_compared_by_their_words(truth, found, f1, exact):
    scores = metrics.answer_scores([truth], [found])
    assert scores == pytest.approx({"f1": f1, "exact_match": exact})


def test_a_missing_library_is_told_with_what_to_install():
    with pytest.raises(metrics.MetricsError, match=r'pip install "jaxlm\[metrics\]"'):
        metrics.library("no_such_metrics")


def test_scores_are_told_by_class_and_by_type_of_entity():
    scores = metrics.class_scores(list("aaabbc"), list("aabbbb"), list("abc"))
    assert scores["a"] == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 4 / 5, "rows": 3})
    assert scores["c"] == {"precision": 0, "recall": 0, "f1": 0, "rows": 1}
    several = metrics.multi_class_scores([("a", "b"), ("b",)], [["a"], ["b"]], ["a", "b"])
    assert several["b"] == pytest.approx({"precision": 1, "recall": 0.5, "f1": 2 / 3, "rows": 2})
    truth, found = [["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "O", "O", "B-LOC"]]
    assert metrics.entity_scores(truth, found) == {
        "LOC": {"precision": 1, "recall": 1, "f1": 1, "rows": 1},
        "PER": {"precision": 0, "recall": 0, "f1": 0, "rows": 1},
    }
    assert metrics.entity_scores([["O"]], [["O"]]) == {}
