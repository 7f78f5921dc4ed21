"""Chat templates rendered by a process of its own, which has only so much time and memory.

A template is a program out of a downloaded file. ChatTemplate starts this file as a script, which
imports nothing of jaxlm. What templates see is what transformers 5 gives them.
"""

import json
import re
import resource
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

LIMITS = {
    "seconds": 5.0,  # of a processor, for one text
    "memory": 1 << 30,  # bytes
    "output": 10_000_000,  # characters of one text
}
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
REASONING = ("reasoning_content", "thinking", "reasoning")
# role (system, user, assistant, tool), content, and whatever else a template may read
Message = Mapping[str, Any]
# tools and documents, each a list of JSON objects, as far as there are any
Given = Mapping[str, Any]
NOTHING: Given = MappingProxyType({})


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
        self.marks_replies = bool(GENERATION.search(source))
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool, given: Given = NOTHING
    ) -> Rendering:
        """One dialogue as text; TokenizerError where the template refuses it or is broken."""
        (found,) = self.try_each([(messages, add_generation_prompt)], given)
        if isinstance(found, str):
            raise cannot_render(found)
        return found

    def try_each(
        self, requests: Sequence[tuple[Sequence[Message], bool]], given: Given = NOTHING
    ) -> list[Rendering | str]:
        """Each dialogue, with the prompt of a reply or without, or what is wrong with it.

        `given` is what the template sees with all of them: `tools` and `documents`.
        """
        wanted = [
            {"messages": [dict(m) for m in messages], "add_generation_prompt": prompted, **given}
            for messages, prompted in requests
        ]
        try:
            line = json.dumps(wanted).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise cannot_render(f"they must be what JSON can hold: {error}") from None
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
            given = {"path": sys.path, "limits": LIMITS}
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
            why = f"takes more than {LIMITS['seconds']:g} seconds"
        raise cannot_render(f"it {why}")


def start() -> subprocess.Popen[bytes]:
    """A process that renders templates; it ends when nothing more can be asked of it."""
    return subprocess.Popen(
        [sys.executable, "-S", "-P", __file__],
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


def cannot_render(reason: str) -> Exception:
    # The process that renders has no use for jaxlm, whose import takes a second.
    from jaxlm.tokenizer.formats import TokenizerError

    return TokenizerError(f"the chat template cannot take these messages: {reason}")


def make_environment() -> Any:
    """A Jinja environment in which no template reaches the machine, with transformers' names."""
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` blocks: what the assistant writes, whose places are noted."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("note"), [], [], body).set_lineno(line)

        def note(self, caller: Any) -> str:
            text, start = caller(), sum(map(len, environment.pieces))
            environment.spans.append((start, start + len(text)))
            return text

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment: Any = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def render(environment: Any, template: Any, names: dict[str, Any], most: int) -> dict[str, Any]:
    """The `text` of a template, of so many characters, and the `spans` of its generation blocks."""
    environment.pieces, environment.spans = [], []
    size = 0
    for piece in template.generate(**names):
        size += len(piece)
        if size > most:
            raise ValueError(f"it writes more than {most:,} characters")
        environment.pieces.append(piece)
    return {"text": "".join(environment.pieces), "spans": environment.spans}


def with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose reasoning, of whatever name, has the name that templates read."""
    found = next((message[key] for key in REASONING if message.get(key) is not None), None)
    if found is None:
        return message
    return {"thinking": found, **message, "reasoning_content": found}


def told(error: BaseException) -> str:
    """What went wrong in a template, and at which of its lines."""
    if isinstance(error, MemoryError):
        return "it takes too much memory"
    line = getattr(error, "lineno", None)
    step = error.__traceback__
    while step is not None:
        line = step.tb_lineno if step.tb_frame.f_code.co_filename == "<template>" else line
        step = step.tb_next
    kind = type(error).__name__
    reason = " ".join(str(error).split())[:300] or kind
    if kind not in ("TemplateError", "UndefinedError", "TemplateSyntaxError", "ValueError"):
        reason = reason if reason == kind else f"{kind}: {reason}"
    return f"{reason} (line {line} of the template)" if line else reason


def answer_requests() -> None:
    given = json.loads(sys.stdin.readline())
    limits = given["limits"]
    with suppress(ValueError, OSError):  # macOS knows no limit of addresses
        resource.setrlimit(resource.RLIMIT_AS, (limits["memory"],) * 2)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, whatever it is doing
    sys.path[:] = given["path"]
    environment: Any = None
    template: Any = None
    for line in sys.stdin:
        answers: list[Any] = []
        for request in json.loads(line):
            signal.setitimer(signal.ITIMER_PROF, limits["seconds"])
            try:
                environment = environment or make_environment()
                template = template or environment.from_string(given["template"])
                request["messages"] = [with_reasoning(m) for m in request["messages"]]
                names = {"tools": None, "documents": None, **given["specials"], **request}
                answers.append(render(environment, template, names, limits["output"]))
            except Exception as error:
                answers.append({"error": told(error)})
            signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    answer_requests()
