"""The replies of a dialogue are found in its whole text, whatever the template does to turns."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.tokenizer import TokenizerError
from jaxlm.tokenizer.chat import chat_text, dialogue_ids, dialogue_with_replies
from tests.tokenizer.dialogues import (
    CHATML,
    DIALOGUES,
    LLAMA2,
    MARKED,
    QWEN3,
    TEMPLATES,
    THOUGHT,
    of_llama,
    turns,
    with_template,
)


def replies(tokenizer, messages):
    """The learned pieces of a dialogue's text."""
    ids, learned = dialogue_with_replies(tokenizer, messages)
    groups = itertools.groupby(zip(ids, learned, strict=True), key=lambda pair: pair[1])
    pieces = [(own, [token for token, _ in group]) for own, group in groups]
    return [tokenizer.decode(group, skip_special_tokens=False) for own, group in pieces if own]


END, EOS = "<|im_end|>\n", "<｜end▁of▁sentence｜>"


@pytest.mark.parametrize(
    ("template", "dialogue", "expected"),
    [
        ("chatml", "two replies", ["world" + END, "hello world" + END]),
        ("chatml", "thought", [THOUGHT + "world" + END, THOUGHT + "hello" + END]),
        ("chatml", "assistant first", ["hello" + END, "he" + END]),
        ("chatml", "twice", ["world" + END, "he" + END]),
        ("qwen3", "two replies", ["world" + END, "<think>\n\n</think>\n\nhello world" + END]),
        ("qwen3", "thought", ["world" + END, THOUGHT + "hello" + END]),
        ("qwen3", "alike", ["a" + END, "<think>\n\n</think>\n\na" + END]),
        ("qwen3", "assistant first", ["hello" + END, "<think>\n\n</think>\n\nhe" + END]),
        ("r1", "two replies", ["world" + EOS, "hello world" + EOS]),
        ("r1", "thought", ["\n\nworld" + EOS, "\n\nhello" + EOS]),
        ("llama2", "system", [" world </s>", " hello </s>"]),
        ("llama2", "blanks", [" world </s>", " hello </s>"]),
        ("mistral", "system", [" world</s>", " hello</s>"]),
        ("mistral", "alike", [" a</s>", " a</s>"]),
        ("gemma", "blanks", ["world<end_of_turn>\n", "hello<end_of_turn>\n"]),
        ("marked", "said before", ["hello<end>", "<end><end>"]),
        ("tools", "two replies", ["world</s>", "hello world</s>"]),
        ("chatml", "unanswered", ["world" + END]),
    ],
)
def test_replies_are_what_the_model_says_after_its_prompt(template, dialogue, expected):
    tokenizer = with_template(TEMPLATES[template])
    assert replies(tokenizer, DIALOGUES[dialogue]) == expected


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_the_tokens_are_those_of_the_whole_text(template, dialogue):
    tokenizer = with_template(TEMPLATES[template])
    messages = DIALOGUES[dialogue]
    last = max(i for i, turn in enumerate(messages) if turn["role"] == "assistant")
    try:
        whole = chat_text(tokenizer, messages[: last + 1], add_generation_prompt=False)
    except TokenizerError:
        with pytest.raises(TokenizerError):
            dialogue_with_replies(tokenizer, messages)
        return
    ids, learned = dialogue_with_replies(tokenizer, messages)
    assert tokenizer.decode(ids, skip_special_tokens=False) == whole
    assert len(learned) == len(ids)
    assert any(learned)


def test_a_prompt_has_the_tokens_that_stand_before_its_reply():
    for make in (with_template, of_llama):
        tokenizer = make(LLAMA2)
        ids, learned = dialogue_with_replies(tokenizer, DIALOGUES["one reply"])
        assert dialogue_ids(tokenizer, turns("hello")) == ids[: learned.index(True)]


def test_a_reply_in_pieces_of_words_begins_with_one_mark_of_space():
    tokenizer = of_llama(LLAMA2)
    ids, learned = dialogue_with_replies(tokenizer, DIALOGUES["one reply"])
    reply = [tokenizer.backend.id_to_token(i) for i, own in zip(ids, learned, strict=True) if own]
    assert reply == ["▁world", "▁", "</s>"]


def test_text_cut_within_a_token_has_no_mark_of_space_that_is_not_there():
    # The prompt ends with a space, which a reply would take into its first token.
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    template += "{% if add_generation_prompt %}assistant: {% endif %}"
    tokenizer = of_llama(template)
    ids, learned = dialogue_with_replies(tokenizer, turns("he", "hello"))
    assert dialogue_ids(tokenizer, turns("he")) == ids[: learned.index(True)]
    assert tokenizer.backend.id_to_token(ids[learned.index(True)]) == "hello"


def test_tool_calls_are_replies_too():
    call = {"function": {"name": "weather", "arguments": {"city": "北京"}}}
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "sun"},
        {"role": "assistant", "content": "world"},
    ]
    assert replies(with_template(TEMPLATES["tools"]), messages) == [
        '{"name": "weather", "arguments": {"city": "北京"}}</s>',
        "world</s>",
    ]


def test_replies_that_a_template_loses_or_turns_round_are_refused():
    for content in ("''", "m.content | reverse"):
        template = (
            f"{{% for m in messages %}}<{{{{ loop.revindex }}}}>{{{{ {content} }}}}{{% endfor %}}"
        )
        with pytest.raises(TokenizerError, match=r"changes turn 2 so that its reply is not found"):
            dialogue_with_replies(with_template(template), turns("a", "bc", "d", "ef"))


words = st.text(st.sampled_from("ab \n<>/今|"), min_size=1, max_size=8).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(
    template=st.sampled_from([name for name in TEMPLATES if name != "marked"]),
    said=st.lists(words, min_size=2, max_size=6).filter(lambda said: len(said) % 2 == 0),
    thought=st.booleans(),
)
def test_every_reply_and_no_question_is_learned(template, said, thought):
    said = [THOUGHT + text if thought and i % 2 else text for i, text in enumerate(said)]
    found = replies(PROPERTY[template], turns(*said))
    assert len(found) == len(said) // 2
    for piece, text in zip(found, said[1::2], strict=True):
        assert text.removeprefix(THOUGHT).strip() in piece


PROPERTY = {name: with_template(text) for name, text in TEMPLATES.items()}


@pytest.mark.parity
@pytest.mark.parametrize("dialogue", DIALOGUES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_transformers_renders_alike(template, dialogue, tmp_path):
    import jinja2
    import transformers

    tokenizer = with_template(TEMPLATES[template])
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    messages = DIALOGUES[dialogue]
    for prompt in (True, False):
        try:
            expected = theirs.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompt
            )
        except jinja2.TemplateError:
            with pytest.raises(TokenizerError):
                chat_text(tokenizer, messages, prompt)
            continue
        assert chat_text(tokenizer, messages, prompt) == expected


@pytest.mark.parity
@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_marked_replies_are_those_of_transformers(dialogue, tmp_path):
    import transformers

    tokenizer = with_template(MARKED)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    messages = DIALOGUES[dialogue]
    messages = messages[:-1] if messages[-1]["role"] == "user" else messages
    found = theirs.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, learned = dialogue_with_replies(tokenizer, messages)
    assert ids == found["input_ids"]
    assert list(map(int, learned)) == found["assistant_masks"]


def test_thoughts_of_past_turns_are_not_learned_as_the_next_question():
    found = replies(with_template(QWEN3), DIALOGUES["thought"])
    assert not any("user" in piece for piece in found)


TOOLS = (
    """{%- if tools %}{{ '<tools>' }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}
{{- '</tools>\\n' }}{% endif %}
{%- for d in documents or [] %}{{ '[' + d.title + '] ' + d.text + '\\n' }}{% endfor %}"""
    + CHATML
)
FUNCTION = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "天气 of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
SHOWN = {"tools": [FUNCTION], "documents": [{"title": "a", "text": "雨 <rain>"}]}


def test_tools_and_documents_are_seen_and_not_learned():
    tokenizer = with_template(TOOLS)
    text = chat_text(tokenizer, turns("he"), given=SHOWN)
    assert text.startswith('<tools>{"type": "function", "function": {"name": "weather", "desc')
    assert "天气 of a city" in text
    assert "[a] 雨 <rain>" in text
    ids, learned = dialogue_with_replies(tokenizer, turns("he", "hello"), SHOWN)
    assert ids[: learned.index(True)] == dialogue_ids(tokenizer, turns("he"), SHOWN)
    assert replies(tokenizer, turns("he", "hello")) == ["hello<|im_end|>\n"]


@pytest.mark.parametrize("wrong", [{"name": "weather"}, ["weather"], "weather", 3])
def test_tools_that_are_no_list_of_objects_are_told(wrong):
    with pytest.raises(TokenizerError, match="tools must be a list of JSON objects, got"):
        chat_text(with_template(TOOLS), turns("he"), given={"tools": wrong})


@pytest.mark.parity
@pytest.mark.parametrize("names", [["tools"], ["documents"], ["tools", "documents"], []])
def test_tools_and_documents_are_rendered_as_by_transformers(names, tmp_path):
    import transformers

    tokenizer = with_template(TOOLS)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    given = {name: SHOWN[name] for name in names}
    for prompt in (True, False):
        expected = theirs.apply_chat_template(
            turns("he"), tokenize=False, add_generation_prompt=prompt, **given
        )
        assert chat_text(tokenizer, turns("he"), prompt, given) == expected
