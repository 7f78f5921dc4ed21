"""Dialogues: prompts as the model was trained on them, and nothing computed twice."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxlm.artifact import Loaded
from jaxlm.config import JaxlmError
from jaxlm.generation import Chat, generate, generate_tokens, prefill
from jaxlm.tokenizer import END_OF_TEXT, train_tokenizer
from tests.fixtures.tiny import tiny_model

TEXT = "你好吗，我很。今天气真the cats walk:"
TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}a{% endif %}"
)
SETTINGS = {"max_new_tokens": 12, "temperature": 1.0, "seed": 1}


def make(specials: list[str], template: str | None = None, **sizes) -> Loaded:
    tokenizer = train_tokenizer("char", [TEXT + "su"], specials=specials)
    if template:
        tokenizer.config["chat_template"] = template
    sizes = {"max_seq_len": 100} | sizes
    model, variables = tiny_model("rotary", vocab_size=tokenizer.vocab_size, **sizes)
    return Loaded(model, variables["params"], tokenizer, model.config)


@pytest.fixture(scope="module")
def templated() -> Loaded:
    return make([END_OF_TEXT], TEMPLATE)


@pytest.fixture(scope="module")
def separated() -> Loaded:
    return make(["[UNK]", "[CLS]", "[SEP]"])


def say(chat: Chat, message: str) -> str:
    return "".join(chat.reply(message))


def test_a_templated_dialogue_is_continued_turn_by_turn(templated):
    chat = Chat(templated, system="the", **SETTINGS)
    prompt = f"sthe{END_OF_TEXT}"
    for turn, message in enumerate(("你好", "我很好", "cat")):
        prompt += f"u{message}{END_OF_TEXT}a"
        (expected,) = generate(templated, [prompt], row=turn, **SETTINGS)
        assert say(chat, message) == expected.lstrip()
        prompt += expected.strip() + END_OF_TEXT
    assert [m["role"] for m in chat.messages] == ["system", *["user", "assistant"] * 3]


def test_turns_of_a_dialogue_model_are_separated(separated):
    chat = Chat(separated, **SETTINGS)
    tokenizer = separated.tokenizer
    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    prompt = [cls]
    for turn, message in enumerate(("你好吗", "我很好")):
        prompt += [*tokenizer.encode(message), sep]
        expected = generate_tokens(
            separated.model,
            separated.params,
            np.array([prompt]),
            stop_tokens=[sep],
            row=turn,
            **SETTINGS,
        )[0].tolist()
        new = expected[: expected.index(sep)] if sep in expected else expected
        reply = say(chat, message)
        assert reply == tokenizer.decode(new).lstrip()
        prompt += [*tokenizer.encode(reply.rstrip()), sep]


def test_each_turn_draws_with_noise_of_its_own(separated):
    even = jax.tree.map(lambda x: 0.001 * x, separated.params)  # all tokens are as likely
    chat = Chat(dataclasses.replace(separated, params=even), **SETTINGS)
    first, second = say(chat, "你好"), say(chat, "你好")
    assert first != second
    chat.reset()
    assert say(chat, "你好") == first


def test_a_reply_ends_at_every_token_that_the_models_files_name(templated):
    greedy = SETTINGS | {"temperature": 0.0}
    plain = say(Chat(templated, **greedy), "你好")
    end = templated.tokenizer.encode(plain[3])[0]
    named = dataclasses.replace(templated, origin={"eos_token_ids": [end]})
    chat = Chat(named, **greedy)
    assert say(chat, "你好") == plain[: plain.index(plain[3])]
    assert chat.messages[-1]["content"] == plain[: plain.index(plain[3])].rstrip()


def test_a_dialogue_that_begins_with_nothing_is_refused_and_goes_on(templated):
    bare = make([END_OF_TEXT], "{% for m in messages %}{{ m.content }}{% endfor %}")
    chat = Chat(bare, **SETTINGS)
    with pytest.raises(JaxlmError, match="prompt 0 is empty"):
        say(chat, "")
    assert chat.messages == []
    assert say(chat, "cat") == say(Chat(bare, **SETTINGS), "cat")


def test_what_was_cached_is_not_computed_again(templated, monkeypatch):
    counted = []
    original = prefill.prefill
    monkeypatch.setattr(
        prefill, "prefill", lambda *args: counted.append(int(args[4].sum())) or original(*args)
    )
    chat = Chat(templated, **SETTINGS | {"temperature": 0.0})
    say(chat, "你好吗，我很")
    first, counted[:] = sum(counted), []
    say(chat, "今天")
    # The reply's last token was never cached; the turn and its marks are new.
    # The end mark is one token.
    assert 0 < sum(counted) <= len("|u今天|a") < first
    chat.reset()
    assert chat.messages == []


def test_a_dialogue_outgrows_its_cache_and_its_context(templated):
    chat = Chat(templated, **SETTINGS | {"max_new_tokens": 30})
    plain = Chat(templated, **SETTINGS | {"max_new_tokens": 30})
    for message in ("你好", "我很好", "cat", "walk"):
        plain.prefix = None  # so that all is computed anew
        assert say(chat, message) == say(plain, message)


def test_a_model_of_plain_text_does_not_chat():
    with pytest.raises(JaxlmError, match="no chat template"):
        Chat(make([END_OF_TEXT]))
