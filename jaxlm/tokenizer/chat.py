"""Dialogues as text and as tokens: by the chat template, or as [CLS] turn [SEP] turn [SEP]."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jaxlm.tokenizer.encoding import ROLES, Tokenizer
from jaxlm.tokenizer.formats import TokenizerError

Message = Mapping[str, str]  # role (system, user, assistant) and content
# For a vocabulary with no more than an end of text: it ends every turn (Zhang et al. 2019).
TURNS_BY_END = "{% for message in messages %}{{ message['content'] + eos_token }}{% endfor %}"


def knows_dialogues(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has a chat template, or [CLS] and [SEP]."""
    by_template = bool(tokenizer.config.get("chat_template"))
    return by_template or None not in (tokenizer.cls_id, tokenizer.sep_id)


def with_dialogues(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, given a chat template if it has no way to write dialogues.

    Raises: TokenizerError where it has no end of text either.
    """
    if knows_dialogues(tokenizer):
        return tokenizer
    if tokenizer.eos_id is None:
        raise TokenizerError(
            "dialogues need a tokenizer with a chat template, with [CLS] and [SEP], or with an end "
            "of text; --data.special_tokens cls_sep trains one"
        )
    return Tokenizer(tokenizer.backend, tokenizer.config | {"chat_template": TURNS_BY_END})


def dialogue_ids(tokenizer: Tokenizer, turns: Sequence[Message]) -> list[int]:
    """The tokens of a dialogue, up to where the next reply begins."""
    if tokenizer.config.get("chat_template"):
        return tokenizer.encode(chat_text(tokenizer, turns))
    assert tokenizer.cls_id is not None  # see knows_dialogues
    assert tokenizer.sep_id is not None
    ids = [tokenizer.cls_id]
    for turn in turns:
        ids += [*tokenizer.encode(turn["content"]), tokenizer.sep_id]
    return ids


def reply_ids(tokenizer: Tokenizer, turns: Sequence[Message]) -> list[int]:
    """The tokens of the last turn, a reply with its end token, as they follow the turns before.

    Raises: TokenizerError where the chat template changes those turns when a reply is added.
    """
    if tokenizer.config.get("chat_template"):
        before = chat_text(tokenizer, turns[:-1])
        whole = chat_text(tokenizer, turns, add_generation_prompt=False)
        if not whole.startswith(before):
            raise TokenizerError("the chat template changes earlier turns when a reply is added")
        return tokenizer.encode(whole[len(before) :])
    return dialogue_ids(tokenizer, turns[-1:])[1:]


def chat_text(
    tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = True
) -> str:
    """A dialogue as one text by the tokenizer's chat template, ready for `encode`.

    Raises: TokenizerError where there is no template, or it refuses the messages.
    """
    template = template_of(tokenizer.config)
    if template is None:
        raise TokenizerError("this tokenizer has no chat template")
    specials = {role: tokenizer.special_token(role) for role in ROLES}
    return render_chat(template, messages, specials, add_generation_prompt)


def render_chat(
    template: str,
    messages: Sequence[Message],
    specials: Mapping[str, str | None],
    add_generation_prompt: bool,
) -> str:
    """The text that a Jinja template, as Hugging Face writes them, makes of messages.

    `specials` holds the special tokens by role, such as eos_token: templates use these names.

    Raises: TokenizerError where the template refuses the messages or is broken.
    """
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment: Any = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(
        value, ensure_ascii=False, **options
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(template).render(
            messages=[dict(message) for message in messages],
            add_generation_prompt=add_generation_prompt,
            **{role: text or "" for role, text in specials.items()},
        )
    except jinja2.TemplateError as error:
        raise TokenizerError(f"the chat template cannot take these messages: {error}") from None


def template_of(config: Mapping[str, Any]) -> str | None:
    """The chat template of a tokenizer_config.json: one text, or the default one of a list."""
    templates = config.get("chat_template")
    if isinstance(templates, list):
        return {t["name"]: t["template"] for t in templates}.get("default")
    return templates
