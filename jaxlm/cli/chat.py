"""`jaxlm chat`: a dialogue with a trained model."""

import argparse
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.cli.generate import (
    declare_options,
    declare_weights,
    load_with_weights,
    options_of,
    with_suggested,
)
from jaxlm.cli.output import Verb, declare_source
from jaxlm.config import JaxlmError

if TYPE_CHECKING:
    from jaxlm.generation import Chat


def declare_chat(parser: argparse.ArgumentParser) -> None:
    declare_source(parser)
    parser.add_argument("--system", metavar="TEXT", help="system message before the dialogue")
    declare_options(parser, max_new_tokens=256)
    declare_weights(parser)


def run_chat(args: argparse.Namespace) -> None:
    """Answer the lines of standard input until it ends or a line is /exit."""
    options = options_of(args)
    loaded = load_with_weights(args)
    options = with_suggested(args, loaded, options) | {"stop_strings": args.stop}
    from jaxlm.generation import Chat

    chat = Chat(loaded, args.system, **options)
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
