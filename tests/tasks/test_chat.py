import itertools
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from jaxlm.data import DataError
from jaxlm.tasks import TASKS
from jaxlm.tasks.chat import without_oldest
from jaxlm.tasks.labelled_rows import read_items
from jaxlm.tokenizer import TokenizerError, train_tokenizer
from jaxlm.tokenizer.chat import dialogue_ids, knows_dialogues
from tests.tasks.fixtures import TEXT, bert_tokenizer, columns, gpt_tokenizer, make_task, read
from tests.tokenizer.dialogues import LLAMA2, QWEN3, with_template

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
    with pytest.raises(DataError, match="row 1 holds 3 where the role of a turn"):
        read("chat", [{"turns": [{"role": 3, "content": "a"}]}], DATA)
    assert read("chat", [{"turns": ["nobody answers"]}], DATA) == [None]
    with pytest.raises(TokenizerError, match=r"--data\.special_tokens cls_sep"):
        make_task("chat", train_tokenizer("char", TEXT))


def messages(*contents):
    roles = itertools.cycle(["user", "assistant"])
    return [{"role": role, "content": c} for role, c in zip(roles, contents, strict=False)]


def test_null_is_empty_and_parts_are_joined():
    parts = [{"type": "text", "text": "the "}, "cat"]
    said = messages(parts, "sat", None, [{"type": "text", "text": "on the mat"}])
    (item,) = read("chat", [{"turns": said}], DATA)
    assert item.content == ("the cat", "sat", "", "on the mat")
    assert read("chat", [{"turns": messages("the cat", None)}], DATA) == [None]


@pytest.mark.parametrize(
    "content", [7, True, {"url": "a"}, [{"type": "image_url", "image_url": "x.png"}], [["a"]]]
)
def test_what_is_no_text_is_told_with_its_row(content):
    with pytest.raises(DataError, match=r"row 1 holds .* where the text of a turn should be"):
        read("chat", [{"turns": messages("the cat", content)}], DATA)


def test_what_else_a_message_says_reaches_the_template():
    said = messages("the cat", "sat")
    said[1] |= {"reasoning_content": "on", "name": None}
    (item,) = read("chat", [{"turns": said}], DATA)
    assert item.label[1] == {"role": "assistant", "content": "sat", "reasoning_content": "on"}
    task = make_task("chat", with_template(QWEN3), limit=99)
    text, _ = learned(task, {"turns": said})
    assert text == "<think>\non\n</think>\n\nsat<|im_end|>\n"


def test_messages_is_a_usual_column_too():
    said = messages("the cat", "sat on the mat")
    for row in ({"messages": said}, {"turns": said}, {"turns": said, "messages": []}):
        assert read("chat", [row], DATA)[0].label == said
    with pytest.raises(DataError, match="no column 'turns'"):
        read("chat", [{"dialogue": said}], DATA)


def test_a_dialogue_in_a_cell_of_a_csv_file_is_read(tmp_path):
    file = tmp_path / "chat.csv"
    file.write_text('messages\n"[""the cat"", ""sat""]"\n', encoding="utf-8")
    (item,) = read_items(TASKS["chat"], replace(DATA, source=str(file)), "", Counter())
    assert item.content == ("the cat", "sat")


def test_thoughts_that_past_turns_lose_leave_questions_unlearned():
    said = messages("a", "<think>\nb\n</think>\n\nc", "d", "<think>\ne\n</think>\n\nf")
    text, whole = learned(make_task("chat", with_template(QWEN3), limit=200), {"turns": said})
    assert text == "c<|im_end|>\n<think>\ne\n</think>\n\nf<|im_end|>\n"
    assert "b" not in whole


def test_a_dialogue_that_a_template_refuses_is_told_with_its_row():
    task = make_task("chat", with_template(LLAMA2), limit=99)
    rows = [messages("a", "b"), messages("a", "b")[::-1] + messages("c", "d")]
    with pytest.raises(DataError, match=r"row 2: .* Conversation roles must alternate .*line \d"):
        task.encode(read("chat", [{"turns": turns} for turns in rows], DATA))


def test_templates_of_which_none_is_the_default_are_told_before_training():
    with pytest.raises(TokenizerError, match=r"\(rag\) is called default"):
        make_task("chat", with_template([{"name": "rag", "template": TEMPLATE}]))


def test_what_is_cut_off_a_long_dialogue_leaves_it_beginning_with_the_user():
    said = [{"role": "system", "content": "s"}, *messages("a" * 9, "b", "c", "d")]
    said[2:2] = [{"role": "assistant", "content": "e" * 9}]
    assert [turn["content"] for turn in without_oldest(said)] == ["s", "c", "d"]
    assert without_oldest(messages("a", "b", "c")) == []
    assert without_oldest(messages("a", "b")) == []


@pytest.mark.parametrize("as_text", [False, True])
def test_tools_of_a_row_are_seen_by_the_template(as_text):
    tools = [{"name": "weather"}]
    row = {"turns": ["the cat", "sat"], "tools": json.dumps(tools) if as_text else tools}
    template = "{{ tools | tojson }}{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    task = make_task("chat", with_template(template), limit=99)
    text, whole = learned(task, row)
    assert '{"name": "weather"}]the cat' in whole
    assert "weather" not in text
    with pytest.raises(DataError, match="row 1: tools must be a list of JSON objects"):
        learned(task, row | {"tools": {"name": "weather"}})
    with pytest.raises(DataError, match="row 1: tools are for a chat template, which"):
        learned(make_task("chat", bert_tokenizer()), row)
