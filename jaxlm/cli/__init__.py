"""`jaxlm VERB`: what the library does, from the shell.

A verb is its help, a function that declares its arguments, and one that runs it. What needs JAX is
imported where a verb runs, so that help and most mistakes are told at once.
"""

import argparse
import difflib
import io
import os
import signal
import sys
from typing import NoReturn

import jaxlm
from jaxlm.cli.chat import CHAT
from jaxlm.cli.exchanging import EXPORT, IMPORT
from jaxlm.cli.fill import FILL
from jaxlm.cli.generate import GENERATE
from jaxlm.cli.judging import EVALUATE, PREDICT
from jaxlm.config import JaxlmError


class UsageError(JaxlmError):
    """A command line that cannot be read."""


class Parser(argparse.ArgumentParser):
    """A parser that raises its complaints."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` tells more")


VERBS = {
    "generate": GENERATE,
    "chat": CHAT,
    "fill": FILL,
    "predict": PREDICT,
    "evaluate": EVALUATE,
    "import": IMPORT,
    "export": EXPORT,
}


def build_parser() -> Parser:
    parser = Parser(prog="jaxlm", description="Small language models in JAX.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"jaxlm {jaxlm.__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        verb.declare(
            verbs.add_parser(name, help=verb.summary, description=verb.summary, allow_abbrev=False)
        )
    return parser


def parse(words: list[str]) -> argparse.Namespace:
    """The arguments of a command; UsageError names the option nearest to an unknown one."""
    parser = build_parser()
    args, unknown = parser.parse_known_args(words)
    if unknown:
        verb = argparse.ArgumentParser(add_help=False)
        VERBS[args.verb].declare(verb)
        options = [name for action in verb._actions for name in action.option_strings]
        word = unknown[0].partition("=")[0]
        near = [option for option in options if option.startswith(word)]
        near = near or difflib.get_close_matches(word, options, n=1)
        hint = f"did you mean {near[0]}?" if near else f"`jaxlm {args.verb} --help` lists them"
        raise UsageError(f"jaxlm {args.verb} knows no {unknown[0]}; {hint}")
    return args


def check_verb(words: list[str]) -> None:
    """Raise UsageError, with the nearest verb, where the first word is none."""
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        near = difflib.get_close_matches(words[0], VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the verbs are: {', '.join(VERBS)}"
        raise UsageError(f"jaxlm has no verb {words[0]!r}; {hint}")


def leave(*_: object) -> NoReturn:
    """End at once on Ctrl-C: a KeyboardInterrupt gets lost where an import meets it in C."""
    os._exit(130)


def main(words: list[str] | None = None) -> int:
    """Run a command: status 0, or 2 after one sentence about a mistake; 130 when interrupted."""
    words = sys.argv[1:] if words is None else words
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Its encoding may lack a character of a text.
        sys.stdout.reconfigure(errors="backslashreplace")
    before = signal.signal(signal.SIGINT, leave)
    try:
        try:
            check_verb(words)
            args = parse(words)
            VERBS[args.verb].run(args)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (JaxlmError, OSError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGINT, before)
    return 0
