"""What chat templates see, and that none of them can hang, fill the memory or show a traceback."""

import json
import resource
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.tokenizer import TokenizerError, templates
from jaxlm.tokenizer.chat import chat_text, knows_dialogues
from jaxlm.tokenizer.templates import ChatTemplate
from tests.tokenizer.dialogues import CHATML, with_template

HELLO = [{"role": "user", "content": "今天"}]


def render(source, messages=HELLO, **specials):
    return ChatTemplate(source, specials).render(messages, True).text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ tools is defined }}{{ tools is none }}{{ documents is none }}", "TrueTrueTrue"),
        ("{{ bos_token }}{{ pad_token is defined }}{{ mask_token }}", "<s>False"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "今天"}]'),
        ("{{ {'b': '<', 'a': 1} | tojson(indent=1) }}", '{\n "b": "<",\n "a": 1\n}'),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", '{"a":2,"b":1}'),
        ("{{ '今' | tojson(ensure_ascii=true) }}", '"\\u4eca"'),
        ("a{% generation %}{{ messages[0].content }}{% endgeneration %}", "a今天"),
        ("{%- for x in [1, 2, 3] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}", "1"),
        ("{{ messages[0].reasoning_content is defined }}", "False"),
    ],
)
def test_templates_see_what_transformers_gives_them(source, text):
    assert render(source, bos_token="<s>") == text


def test_templates_know_the_date_and_other_names_of_thoughts():
    assert render("{{ strftime_now('%Y') }}") == time.strftime("%Y")
    message = {"role": "assistant", "content": "", "reasoning": "hmm"}
    assert render("{{ messages[0].reasoning_content }}", [message]) == "hmm"


def test_tokens_of_other_roles_are_seen_and_null_ones_are_not():
    template = "{{ image_token }}{{ pad_token is defined }}{{ add_bos_token is defined }}"
    more = {"image_token": "<image>", "pad_token": None, "add_bos_token": True}
    assert chat_text(with_template(template, **more), HELLO) == "<image>FalseFalse"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{{ raise_exception('no such role') }}", "no such role"),
        ("\n{% for %}", "line 2 of the template"),
        ("\n\n{{ messages[7].content }}", "line 3 of the template"),
        ("{% endgeneration %}", "line 1"),
        ("{% generation %}", "line 1"),
        ("{% include 'x' %}", "TypeError|loader"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages | nofilter }}", "No filter named"),
        ("{{ strftime_now(3) }}", "TypeError"),
        ("{{ {1: messages} | tojson(indent=messages) }}", "TypeError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ ('(' * 9999) ~ messages[0].nothing.more }}", "nothing"),
        ("{{" + "(" * 500 + "1" + ")" * 500 + "}}", "line|RecursionError|MemoryError|parenthes"),
        ("{{ range(10**9) | list }}", "OverflowError"),
        ("{% set x = namespace() %}{{ x.y.z }}", "undefined|no attribute"),
        ("{{ '%d' % 'a' }}", "TypeError"),
    ],
)
def test_what_goes_wrong_in_a_template_is_one_sentence(source, told):
    with pytest.raises(TokenizerError, match=told) as raised:
        render(source)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


DOUBLING = "{{% set n = namespace(s='ab') %}}{{% for i in range(99) %}}{{% set n.s = {} %}}"
DOUBLING += "{{% endfor %}}{{{{ n.s }}}}"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) if false %}x{% endfor %}{% endfor %}",
        "{{ 'x' * 10**10 }}",
        "{{ 9 ** (9 ** 9) }}",
        DOUBLING.format("n.s ~ n.s"),
        DOUBLING.format("[n.s, n.s]"),
        "{{ 'x'.ljust(10**10) }}",
        "{{ '%10000000000d' % 1 }}",
        "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(99) }}",
        "{{ lipsum(n=99999) }}",
    ],
)
def test_no_template_hangs_or_fills_the_memory(source, monkeypatch):
    monkeypatch.setitem(templates.LIMITS, "seconds", 0.5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    with pytest.raises(TokenizerError, match="chat template cannot take these messages"):
        render(source)
    assert time.monotonic() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_a_template_works_again_after_one_text_was_too_much(monkeypatch):
    monkeypatch.setitem(templates.LIMITS, "output", 10_000)
    source = "{% for i in range(messages[0].content | int) %}{% for j in range(99999) %}x"
    template = ChatTemplate(source + "{% endfor %}{% endfor %}", {})
    for _ in range(2):
        with pytest.raises(TokenizerError, match="10,000 characters"):
            template.render([{"content": "99999"}], False)
        assert template.render([{"content": "0"}], False).text == ""
    template._process.kill()
    template._process.wait()
    assert template.render([{"content": "0"}], False).text == ""


def test_none_of_several_templates_is_told_before_it_is_used():
    named = [{"name": "rag", "template": CHATML}, {"name": "tool_use", "template": CHATML}]
    for use in (knows_dialogues, lambda tokenizer: chat_text(tokenizer, HELLO)):
        with pytest.raises(TokenizerError, match=r"\(rag, tool_use\) is called default"):
            use(with_template(named))
    for wrong in ([1], [{"name": "default"}], 3, [{"name": "default", "template": 3}]):
        with pytest.raises(TokenizerError, match=r"chat.template must be a text"):
            chat_text(with_template(wrong), HELLO)


def test_messages_that_json_does_not_hold_are_told():
    with pytest.raises(TokenizerError, match="what JSON can hold"):
        render(CHATML, [{"role": "user", "content": object()}])


atoms = st.sampled_from(
    [
        *("messages", "messages[0]", "messages[0].content", "x", "1", "-1", "'a'", "none", "loop"),
        *("bos_token", "tools", "[1, 'b']", "{'a': 1}", "namespace(a=1)", "range(3)"),
    ]
)
operators = st.sampled_from([" + ", " * ", " ~ ", " in ", " == ", " and ", " % ", " // ", "."])
filters = st.sampled_from(["", " | tojson", " | length", " | join", " | trim", " | list", "[0]"])
expressions = st.builds(lambda a, o, b, f: f"({a}{o}{b}){f}", atoms, operators, atoms, filters)
statements = st.one_of(
    expressions.map(lambda e: f"{{{{ {e} }}}}"),
    expressions.map(lambda e: f"{{% for x in {e} %}}{{{{ x }}}}{{% endfor %}}"),
    expressions.map(lambda e: f"{{% if {e} %}}a{{% else %}}b{{% endif %}}"),
    expressions.map(lambda e: f"{{% set x = {e} %}}"),
    st.sampled_from(["{% generation %}", "{% endgeneration %}", "{%", "}}", "{% break %}", "text"]),
)
contents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=3
)


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(statements, min_size=1, max_size=3), content=contents)
def test_any_template_gives_a_text_or_one_sentence(parts, content):
    template = ChatTemplate("".join(parts), {"bos_token": "<s>"})
    for found in template.try_each([([{"role": "user", "content": content}], True)]):
        assert isinstance(found, str) or found.text is not None
        json.dumps(found)


def test_limits_are_within_reason():
    assert templates.LIMITS["seconds"] <= 10
    assert templates.LIMITS["memory"] <= 2 << 30
