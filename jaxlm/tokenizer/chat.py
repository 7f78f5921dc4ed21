"""Dialogues as text and as tokens: by the chat template, or as [CLS] turn [SEP] turn [SEP]."""

import json
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxlm.tokenizer import templates
from jaxlm.tokenizer.encoding import Tokenizer
from jaxlm.tokenizer.formats import TokenizerError
from jaxlm.tokenizer.replies import reply_spans, tokens_of_spans

# role (system, user, assistant, tool), content, and whatever else a template may read
Message = Mapping[str, Any]
# For a vocabulary with no more than an end of text: it ends every turn (Zhang et al. 2019).
TURNS_BY_END = "{% for message in messages %}{{ message['content'] + eos_token }}{% endfor %}"


class Rendering(NamedTuple):
    """A dialogue as text, and where the template says that the assistant wrote it."""

    text: str
    spans: list[tuple[int, int]]


class ChatTemplate:
    """A Jinja template of dialogues, as Hugging Face writes them, in a process with limits.

    `specials` are the special tokens by the names that templates use, such as eos_token.
    """

    def __init__(self, source: str, specials: Mapping[str, str]):
        self.source, self.specials = source, dict(specials)
        self.marks_replies = bool(templates.GENERATION.search(source))
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def render(self, messages: Sequence[Message], add_generation_prompt: bool) -> Rendering:
        """One dialogue as text; TokenizerError where the template refuses it or is broken."""
        (found,) = self.try_each([(messages, add_generation_prompt)])
        if isinstance(found, str):
            raise TokenizerError(f"the chat template cannot take these messages: {found}")
        return found

    def try_each(self, requests: Sequence[tuple[Sequence[Message], bool]]) -> list[Rendering | str]:
        """Each dialogue, with the prompt of a reply or without, or what is wrong with it."""
        wanted = [
            {"messages": [dict(m) for m in messages], "add_generation_prompt": prompted}
            for messages, prompted in requests
        ]
        try:
            line = json.dumps(wanted).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise TokenizerError(f"messages must be what JSON can hold: {error}") from None
        with self._lock:
            answers = self._ask(line)
        return [
            found["error"]
            if "error" in found
            else Rendering(found["text"], [(a, b) for a, b in found["spans"]])
            for found in answers
        ]

    def _ask(self, line: bytes) -> list[dict[str, Any]]:
        if self._process is None or self._process.poll() is not None:
            self._process = start()
            weakref.finalize(self, stop, self._process)
            given = {"path": sys.path, "limits": templates.LIMITS}
            given |= {"template": self.source, "specials": self.specials}
            line = json.dumps(given).encode() + b"\n" + line
        process: Any = self._process
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if answer:
            return json.loads(answer)
        self._process = None
        why = "takes too much memory, or its process was ended"
        if process.wait() == -signal.SIGPROF:
            why = f"takes more than {templates.LIMITS['seconds']:g} seconds"
        raise TokenizerError(f"the chat template cannot take these messages: it {why}")


def start() -> subprocess.Popen[bytes]:
    """A process that renders templates; it ends when nothing more can be asked of it."""
    return subprocess.Popen(
        [sys.executable, "-S", "-P", templates.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the program that asks
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


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


def chat_template(tokenizer: Tokenizer) -> ChatTemplate | None:
    """The tokenizer's chat template: its only one, or the default one of several.

    Raises: TokenizerError where none of several is the default.
    """
    source = tokenizer.config.get("chat_template")
    if not source:
        return None
    if isinstance(source, list):
        try:
            source = {entry["name"]: entry["template"] for entry in source}
        except (TypeError, KeyError):
            raise TokenizerError(
                "chat_template must be a text, or name and template each"
            ) from None
    if isinstance(source, dict):
        if "default" not in source:
            names = ", ".join(map(str, source))
            raise TokenizerError(
                f"none of the tokenizer's chat templates ({names}) is called default: put the one "
                "to use into chat_template.jinja"
            )
        source = source["default"]
    if not isinstance(source, str):
        raise TokenizerError(f"the chat template must be a text, not {source!r}")
    return tokenizer.templates.setdefault(source, ChatTemplate(source, tokenizer.special_tokens()))


def chat_text(
    tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = True
) -> str:
    """A dialogue as one text by the tokenizer's chat template, ready for `encode`.

    Raises: TokenizerError where there is no template, or it refuses the messages.
    """
    template = chat_template(tokenizer)
    if template is None:
        raise TokenizerError("this tokenizer has no chat template")
    return template.render(messages, add_generation_prompt).text


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


def dialogue_with_replies(
    tokenizer: Tokenizer, turns: Sequence[Message]
) -> tuple[list[int], list[bool]]:
    """The tokens of a dialogue up to its last reply, and which of them belong to replies.

    A reply has its end token with it. The tokens are those of the whole text, which the template
    may write otherwise than the dialogue up to a reply.

    Raises: TokenizerError where the template refuses the dialogue or replies are not found in it.
    """
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=-1)
    turns = turns[: last + 1]
    if not turns:
        return [], []
    template = chat_template(tokenizer)
    if template is not None:
        return tokens_of_spans(tokenizer, *reply_spans(template, turns))
    ids = dialogue_ids(tokenizer, [])
    learned = [False]
    for turn in turns:
        added = dialogue_ids(tokenizer, [turn])[1:]
        ids += added
        learned += [turn["role"] == "assistant"] * len(added)
    return ids, learned
