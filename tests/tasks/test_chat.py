import numpy as np
import pytest

from jaxlm.data import DataError
from jaxlm.tokenizer import TokenizerError, train_tokenizer
from jaxlm.tokenizer.chat import dialogue_ids, knows_dialogues
from tests.tasks.fixtures import TEXT, bert_tokenizer, columns, gpt_tokenizer, make_task, read

DATA = columns("turns", label=None)
TURNS = ["the cat", "sat on the mat", "the dog", "ran to Rome"]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def learned(task, row):
    """The text of the tokens that are learned, and of all."""
    (example,) = task.encode(read("chat", [row], DATA))
    tokens, weights = example.tokens["targets"], example.tokens["weights"]
    np.testing.assert_array_equal(example.tokens["ids"][1:], tokens[:-1])
    decode = task.tokenizer.decode
    return decode(tokens[weights > 0], skip_special_tokens=False), decode(tokens, False)


def test_replies_with_what_ends_them_are_learned_and_nothing_else():
    task = make_task("chat", bert_tokenizer())
    text, whole = learned(task, {"turns": TURNS})
    assert text == "sat on the mat [SEP] ran to Rome [SEP]"
    assert whole == "the cat [SEP] sat on the mat [SEP] the dog [SEP] ran to Rome [SEP]"


def test_a_vocabulary_with_an_end_alone_ends_every_turn_with_it():
    task = make_task("chat", gpt_tokenizer())
    assert (
        learned(task, {"turns": TURNS})[0] == "sat on the mat<|endoftext|>ran to Rome<|endoftext|>"
    )
    assert knows_dialogues(task.tokenizer)
    # What the model is asked with is what it saw before a reply.
    asked = dialogue_ids(task.tokenizer, [{"role": "user", "content": "the cat"}])
    (example,) = task.encode(read("chat", [{"turns": TURNS}], DATA))
    assert example.tokens["ids"][: len(asked)].tolist() == asked


def test_a_chat_template_writes_the_dialogue():
    tokenizer = gpt_tokenizer()
    tokenizer.config["chat_template"] = TEMPLATE
    messages = [{"role": "system", "content": "on the mat"}]
    messages += [
        {"role": r, "content": t} for r, t in zip(("user", "assistant"), TURNS, strict=False)
    ]
    text, _ = learned(make_task("chat", tokenizer, limit=64), {"turns": messages})
    assert text == "sat on the mat\n"


def test_a_long_dialogue_loses_its_oldest_turns():
    task = make_task("chat", bert_tokenizer(), limit=16)
    text, whole = learned(task, {"turns": TURNS * 5})
    assert text.endswith("ran to Rome [SEP]")
    assert whole.count("[SEP]") < 20
    assert task.notes["dialogues_cut"] == 1


def test_what_is_no_dialogue_is_told_with_its_row():
    with pytest.raises(DataError, match="row 1 holds 'hello' in column 'turns' where a list"):
        read("chat", [{"turns": "hello"}], DATA)
    with pytest.raises(DataError, match="where a turn should be"):
        read("chat", [{"turns": [1, 2]}], DATA)
    assert read("chat", [{"turns": ["nobody answers"]}], DATA) == [None]
    with pytest.raises(TokenizerError, match=r"--data\.special_tokens cls_sep"):
        make_task("chat", train_tokenizer("char", TEXT))
