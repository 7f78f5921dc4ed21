"""Chat templates: a dialogue as the one text that a model was trained to continue."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jaxlm.tokenizer.files import TokenizerError

Message = Mapping[str, str]  # role (system, user, assistant) and content


def render_chat(
    template: str,
    messages: Sequence[Message],
    specials: Mapping[str, str | None],
    add_generation_prompt: bool,
) -> str:
    """The text that a Jinja template of Hugging Face's kind makes of messages.

    `specials` are the texts of the special tokens by role, which templates use by name. Raises
    TokenizerError where the template refuses the messages or is broken.
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
    """The chat template of a tokenizer_config.json: one text, or a list of which one is default."""
    templates = config.get("chat_template")
    if isinstance(templates, list):
        return {t["name"]: t["template"] for t in templates}.get("default")
    return templates
