"""`jaxlm chat`: a dialogue with a trained model."""

import argparse
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlm.cli.generate import (
    declare_options,
    declare_weights,
    load_with_weights,
    options_of,
    read_text,
    with_suggested,
)
from jaxlm.cli.output import Verb, declare_source
from jaxlm.config import JaxlmError

if TYPE_CHECKING:
    from jaxlm.generation import Chat


GIVEN = ("tools", "documents")  # that a template may show, besides the messages


def declare_chat(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    declare_source(parser)
    add("--system", metavar="TEXT", help="system message before the dialogue")
    for name in GIVEN:
        add(f"--{name}", metavar="FILE", help=f"JSON: {name} that the chat template shows, a list")
    declare_options(parser, max_new_tokens=256)
    declare_weights(parser)


def run_chat(args: argparse.Namespace) -> None:
    """Answer the lines of standard input until it ends or a line is /exit."""
    options = options_of(args)
    given = {name: read_json(getattr(args, name)) for name in GIVEN if getattr(args, name)}
    loaded = load_with_weights(args)
    options = with_suggested(args, loaded, options) | {"stop_strings": args.stop}
    from jaxlm.generation import Chat

    chat = Chat(loaded, args.system, **given, **options)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a line that is not UTF-8 is no error
    interactive = sys.stdin.isatty()
    if interactive:
        print("/reset starts over, /save FILE writes the dialogue, /exit ends.")
    while True:
        try:
            line = input("> " if interactive else "").strip()
        except EOFError:
            return
        if line == "/exit":
            return
        if line.startswith("/"):
            run_command(chat, *line.split(maxsplit=1))
        elif line:
            answer(chat, line)


def read_json(path: str) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise JaxlmError(f"{path} is not JSON: {error}") from None


def answer(chat: "Chat", line: str) -> None:
    """Print the reply to a line; an error is printed and the dialogue continues."""
    try:
        if any("\ud800" <= character <= "\udfff" for character in line):
            raise JaxlmError("the line is not UTF-8 text")
        for piece in chat.reply(line):
            print(piece, end="", flush=True)
        print(flush=True)
    except JaxlmError as error:
        print(f"error: {error}", file=sys.stderr)


def run_command(chat: "Chat", command: str, argument: str | None = None) -> None:
    """Run a command that begins with a slash; an error is printed and the dialogue continues."""
    if command == "/reset" and argument is None:
        chat.reset()
    elif command == "/save" and argument is not None:
        content = json.dumps({"messages": chat.messages}, ensure_ascii=False, indent=2)
        try:
            Path(argument).write_text(content + "\n", encoding="utf-8")
        except OSError as error:
            print(f"error: {error}", file=sys.stderr)
    else:
        print("error: the commands are /reset, /save FILE and /exit", file=sys.stderr)


CHAT = Verb("talk with a trained model", declare_chat, run_chat)
