"""Chat templates in the ways that published models write them, and dialogues for them."""

from jaxlm.tokenizer import Tokenizer
from tests.tokenizer.backends import byte_level, llama

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' "
    "}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Thinking is dropped of all turns but the last, which always has some.
QWEN3 = """{%- for m in messages %}
{%- if m.role == 'assistant' %}
    {%- set parts = m.content.split('</think>') %}
    {%- set thought = m.reasoning_content or parts[0].split('<think>')[-1].strip('\\n') %}
    {%- if parts | length == 1 and not m.reasoning_content %}{% set thought = '' %}{% endif %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if loop.last %}{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}{% endif %}
    {{- parts[-1].lstrip('\\n') + '<|im_end|>\\n' }}
{%- else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
# The prompt opens a thought, which past turns do not have.
R1 = """{{ bos_token }}{% for m in messages %}
{%- if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}{% endif %}
{%- if m['role'] == 'assistant' %}{% set content = m['content'] %}
    {%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
    {{- '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"""
LLAMA2 = """{% if messages[0]['role'] == 'system' %}
{%- set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}
{%- set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}
{%- for m in messages %}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
    {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if m['role'] == 'user' %}
        {{- bos_token + '[INST] ' + (system if loop.first else '') + m['content'].strip() }}
        {{- ' [/INST]' }}
    {%- else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}
{%- endfor %}"""
# The system's words stand before those of the last user turn.
MISTRAL = """{{ bos_token }}{% if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}{% set rest = messages[1:] %}
{%- else %}{% set rest = messages %}{% endif %}
{%- set places = namespace(last=-1) %}
{%- for m in rest %}
    {%- if m.role == 'user' %}{% set places.last = loop.index0 %}{% endif %}
{%- endfor %}
{%- for m in rest %}
    {%- if m.role == 'user' %}{{ '[INST] ' }}
        {%- if system is defined and loop.index0 == places.last %}{{ system + '\\n\\n' }}{% endif %}
        {{- m.content + '[/INST]' }}
    {%- else %}{{ ' ' + m.content + eos_token }}{% endif %}
{%- endfor %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{- raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}
    {%- set role = 'model' if m['role'] == 'assistant' else m['role'] %}
    {{- '<start_of_turn>' + role + '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
MARKED = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}<end>{% endgeneration %}{% else %}{{ m.content }}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TOOLS = """{% if tools is defined and tools is not none %}{{ tools | tojson }}{% endif %}
{%- if documents is not none %}{{ documents }}{% endif %}
{%- if pad_token is defined %}{{ pad_token }}{% endif %}
{%- for m in messages %}{{ m.role }}:{{ m.content }}
{%- for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}
{{- eos_token }}
{%- endfor %}{% if add_generation_prompt %}assistant:{% endif %}"""
TEMPLATES = {
    "chatml": CHATML,
    "qwen3": QWEN3,
    "r1": R1,
    "llama2": LLAMA2,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "marked": MARKED,
    "tools": TOOLS,
}
THOUGHT = "<think>\nhmm\n</think>\n\n"


def turns(*texts, system=None, first="user"):
    """Messages of two who take turns."""
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    said = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return said if system is None else [{"role": "system", "content": system}, *said]


DIALOGUES = {
    "one reply": turns("hello", "world"),
    "two replies": turns("hello", "world", "he", "hello world"),
    "alike": turns("a", "a", "a", "a"),
    "system": turns("hello", "world", "he", "hello", system="today"),
    "thought": turns("hello", THOUGHT + "world", "he", THOUGHT + "hello"),
    "blanks": turns(" hello ", " world\n", "he", "\n\nhello "),
    "said before": turns("hello<end>world", "hello", "world", "<end>"),
    "assistant first": turns("hello", "world", "he", first="assistant"),
    "twice": [*turns("hello", "world"), {"role": "assistant", "content": "he"}],
    "unanswered": turns("hello", "world", "he"),
    "Chinese": turns("今天", "天气", "真", "好"),
}


def with_template(template, backend=byte_level, **specials):
    """A tokenizer with a chat template and the special tokens <s> and </s>."""
    added = backend(["<s>", "</s>"]) if backend is byte_level else backend()
    config = {"chat_template": template, "bos_token": "<s>", "eos_token": "</s>", **specials}
    return Tokenizer(added, config)


def of_llama(template):
    return with_template(template, llama)
