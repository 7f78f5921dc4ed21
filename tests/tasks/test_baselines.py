from jaxlm.tasks import baselines


def test_simple_models_learn_words_and_chinese_characters():
    texts = [f"{word} {i}" for i in range(10) for word in ("很好看", "太差了", "not bad")]
    labels = [("好",), ("差",), ("好",)] * 10
    found = baselines.baseline_answers(texts, labels, ["好看", "差", "bad"], several=False)
    assert found["majority"] == [("好",)] * 3
    assert found["tfidf_logistic_regression"] == [("好",), ("差",), ("好",)]
    several = [("a", "b"), ("a",), ("a", "b")] * 10
    found = baselines.baseline_answers(texts, several, ["好看", "差"], several=True)
    assert found["majority"] == [("a", "b")] * 2
    assert found["tfidf_logistic_regression"] == [("a", "b"), ("a",)]
    assert list(baselines.baseline_answers(["...", "!"], labels[:2], ["?"], False)) == ["majority"]


def test_a_simple_model_of_a_thousand_labels_takes_seconds():
    texts = [f"word{i} and word{i} or so" for i in range(1000)] * 2
    labels = [(str(i),) for i in range(1000)] * 2
    found = baselines.baseline_answers(texts, labels, texts[:50], several=False)
    right = sum(a == b for a, b in zip(found["tfidf_logistic_regression"], labels, strict=False))
    assert right > 40


def tagged(text):
    """Words and tags of a text such as `they/PRON can/AUX`."""
    return tuple(zip(*(pair.split("/") for pair in text.split()), strict=True))


def test_a_dictionary_takes_the_longest_phrase_it_knows_and_leaves_out_what_is_mostly_wrong():
    learned = [
        tagged("上/B-LOC 海/I-LOC 人/O 在/O 上/B-LOC 海/I-LOC 港/I-LOC"),
        tagged("王/B-PER 明/I-PER 说/O"),
        tagged("王/B-PER 说/O"),
        tagged("国/O 王/O 和/O 女/O 王/O"),
    ]
    found = baselines.dictionary_tags(learned, [list("王明到上海港"), list("女王到上海"), []])
    assert found[0] == ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "I-LOC"]
    assert found[1] == ["O", "O", "O", "B-LOC", "I-LOC"]  # 王 alone is a name once in three times
    assert found[2] == []


def test_a_dictionary_of_other_tags_has_each_words_most_frequent_one():
    learned = [tagged("they/PRON can/AUX fish/VERB"), tagged("a/DET can/NOUN can/AUX fish/VERB")]
    (found,) = baselines.dictionary_tags(learned, [["they", "fish", "birds", "can"]])
    assert found == ["PRON", "VERB", "AUX", "AUX"]
