"""The command line, `jaxlm VERB`.

Verbs import JAX only when they run, so that help and most mistakes are shown at once.
"""

import argparse
import difflib
import io
import os
import sys
from typing import NoReturn

import jaxlm
from jaxlm.cli import train
from jaxlm.cli.chat import CHAT
from jaxlm.cli.compare import COMPARE
from jaxlm.cli.doctor import DOCTOR
from jaxlm.cli.evaluate import EVALUATE
from jaxlm.cli.exchange import EXPORT, IMPORT
from jaxlm.cli.fill import FILL
from jaxlm.cli.generate import GENERATE
from jaxlm.cli.inspect import INSPECT
from jaxlm.cli.plan import PLAN
from jaxlm.cli.predict import PREDICT
from jaxlm.cli.sweep import SWEEP
from jaxlm.cli.translate import TRANSLATE
from jaxlm.config import JaxlmError
from jaxlm.runtime import INTERRUPTED, exit_on_interrupt, is_out_of_memory

TRAIN = "train"  # takes dotted config fields, which argparse cannot parse
VERBS = {
    "generate": GENERATE,
    "chat": CHAT,
    "fill": FILL,
    "translate": TRANSLATE,
    "predict": PREDICT,
    "evaluate": EVALUATE,
    "import": IMPORT,
    "export": EXPORT,
    "inspect": INSPECT,
    "compare": COMPARE,
    "sweep": SWEEP,
    "plan": PLAN,
    "doctor": DOCTOR,
}


class UsageError(JaxlmError):
    """A command line that cannot be read."""


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def build_parser() -> Parser:
    parser = Parser(prog="jaxlm", description="Small language models in JAX.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"jaxlm {jaxlm.__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verbs.add_parser(TRAIN, help="train a model by a config file")
    for name, verb in VERBS.items():
        verb.declare(
            verbs.add_parser(name, help=verb.summary, description=verb.summary, allow_abbrev=False)
        )
    return parser


def parse(words: list[str]) -> argparse.Namespace:
    """The arguments of a command.

    Raises: UsageError, which suggests the closest verb or option for an unknown one.
    """
    check_verb(words)
    parser = build_parser()
    args, unknown = parser.parse_known_args(words)
    if VERBS[args.verb].takes_fields:  # dotted config fields, which load_config checks
        args.fields = unknown
        unknown = [w for w in unknown if w.startswith("-") and "." not in w.partition("=")[0]]
        unknown = [word for word in unknown if not word[1:2].isdigit()]  # a value below 0
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
    names = [TRAIN, *VERBS]
    if words and not words[0].startswith("-") and words[0] not in names:
        near = difflib.get_close_matches(words[0], names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the verbs are: {', '.join(names)}"
        raise UsageError(f"jaxlm has no verb {words[0]!r}; {hint}")


def run_verb(words: list[str]) -> int:
    """The exit status of a verb: 0 for those that do not return one."""
    if words[:1] == [TRAIN]:
        train.run(words[1:])
        return 0
    args = parse(words)
    return VERBS[args.verb].run(args) or 0


def main(words: list[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 2 after a user's mistake, 130 on Ctrl-C."""
    words = sys.argv[1:] if words is None else words
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The terminal's encoding may not have every character.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with exit_on_interrupt():
            try:
                return run_verb(words)
            finally:
                sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has exited. Without this, closing stdout would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:  # training raises it after saving
        return INTERRUPTED
    except (JaxlmError, OSError, MemoryError) as error:
        told = error
        if isinstance(error, OSError) and error.filename is not None:
            told = f"{error.filename}: {error.strerror}"
        print(f"error: {told}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        print("error: the device has too little memory for this; ask for less", file=sys.stderr)
        return 2
    return 0
