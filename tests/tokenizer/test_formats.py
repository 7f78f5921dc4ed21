"""The files tokenizers come in, what they put around a text, and chat templates."""

import json

import pytest

from jaxlm.tokenizer import Tokenizer, TokenizerError, train_tokenizer
from jaxlm.tokenizer.chat import chat_text

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "今", "天", "气", "hello", "##lo", "he"]
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " 今天天气真 "},
    {"role": "assistant", "content": "好"},
]
TEMPLATE = """{%- for m in messages %}
    {%- if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}
<|{{ m['role'] }}|>{{ m['content'] | trim }}{{ sep_token }}
{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""


@pytest.fixture
def bert(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return tmp_path


def test_a_bert_vocabulary_alone_is_read(bert):
    tokenizer = Tokenizer.load(bert)
    assert tokenizer.encode("今天 HELLO") == [5, 6, 8]
    assert Tokenizer.load(bert / "vocab.txt").encode("今天") == [5, 6]
    assert (tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id, tokenizer.pad_id) == (2, 3, 4, 0)


def test_its_config_decides_about_case(bert):
    (bert / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert Tokenizer.load(bert).encode("HELLO") == [1]


def test_a_prompt_has_the_templates_opening_and_not_its_end(bert):
    tokenizer = Tokenizer.load(bert)
    assert tokenizer.backend.encode("今天").ids == [2, 5, 6, 3]
    assert tokenizer.encode_prompt("今天") == [2, 5, 6]
    assert tokenizer.encode_prompt("今[SEP]") == [2, 5, 3]
    assert tokenizer.encode_prompt("") == [2]


def test_a_prompt_is_plain_where_nothing_opens_a_text():
    tokenizer = train_tokenizer("char", ["今天"])
    assert tokenizer.encode_prompt("今") == tokenizer.encode("今")
    assert tokenizer.encode_prompt("") == []


def test_what_is_saved_keeps_the_template_and_all_settings(bert, tmp_path):
    settings = {"padding_side": "left", "model_max_length": 512, "chat_template": TEMPLATE}
    (bert / "tokenizer_config.json").write_text(json.dumps(settings))
    Tokenizer.load(bert).save(tmp_path / "again")
    again = Tokenizer.load(tmp_path / "again")
    assert again.encode_prompt("今天") == [2, 5, 6]
    assert settings.items() <= again.config.items()


@pytest.mark.parametrize("where", ["text", "list", "file"])
def test_a_chat_template_makes_one_text_of_a_dialogue(bert, where):
    if where == "file":
        (bert / "chat_template.jinja").write_text(TEMPLATE)
    else:
        named = [{"name": "default", "template": TEMPLATE}, {"name": "rag", "template": ""}]
        config = {"chat_template": TEMPLATE if where == "text" else named}
        (bert / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.load(bert)
    text = chat_text(tokenizer, TURNS)
    assert text == (
        "<|system|>Be brief.[SEP]\n<|user|>今天天气真[SEP]\n<|assistant|>好[SEP]\n<|assistant|>"
    )
    assert not chat_text(Tokenizer.load(bert), TURNS[:1], add_generation_prompt=False).endswith(
        "|>"
    )


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (None, "no chat template"),
        (TEMPLATE, "no tools here"),
        ("{% for %}", "cannot take these messages"),
        ("{{ messages.append(1) }}", "cannot take these messages"),
    ],
)
def test_what_a_template_refuses_is_told_in_one_sentence(bert, template, told):
    config = {} if template is None else {"chat_template": template}
    (bert / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match=told):
        chat_text(Tokenizer.load(bert), [{"role": "tool", "content": ""}])


def test_word_rules_that_two_files_do_not_tell_are_refused(tmp_path):
    for name, content in {
        "vocab.json": '{"a": 0}',
        "merges.txt": "",
        "tokenizer_config.json": '{"tokenizer_class": "CodeGenTokenizer"}',
    }.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(TokenizerError, match="holds a CodeGenTokenizer"):
        Tokenizer.load(tmp_path)


def test_roberta_puts_its_own_tokens_around_a_text(tmp_path):
    alphabet = {
        token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a"])
    }
    (tmp_path / "vocab.json").write_text(json.dumps(alphabet))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}')
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.backend.encode("aa").ids == [0, 5, 5, 2]
    assert tokenizer.encode_prompt("a") == [0, 5]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.mask_id) == (0, 2, 4)


@pytest.mark.parity
def test_the_reference_encodes_and_renders_alike(bert):
    import transformers

    text = "今天 Hello, hé heLLO 天气"
    theirs = transformers.BertTokenizer.from_pretrained(str(bert))
    assert Tokenizer.load(bert).backend.encode(text).ids == theirs(text)["input_ids"]
    theirs.chat_template = TEMPLATE
    expected = theirs.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True)
    (bert / "chat_template.jinja").write_text(TEMPLATE)
    assert chat_text(Tokenizer.load(bert), TURNS) == expected
