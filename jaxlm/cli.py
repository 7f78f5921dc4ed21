"""`jaxlm VERB`: what the library does, from the shell.

A verb is a row of VERBS: its help, a function that declares its arguments, and one that runs it.
What needs JAX is imported where a verb runs, so that help and most mistakes are told at once.
"""

import argparse
import difflib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import jaxlm
from jaxlm.config import JaxlmError
from jaxlm.config.rules import require


class UsageError(JaxlmError):
    """A command line that cannot be read."""


class Parser(argparse.ArgumentParser):
    """A parser that raises its complaints."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` tells more")


class Verb(NamedTuple):
    summary: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def declare_generate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help="a run directory or a checkpoint")
    add("--prompt", action="append", required=True, metavar="TEXT", help="may be repeated")
    add("--max-new-tokens", type=int, default=64, metavar="N", help="at most; default 64")
    add("--temperature", type=float, default=1.0, metavar="X", help="0 is greedy; default 1")
    add("--top-k", type=int, metavar="N", help="sample among the N likeliest tokens")
    add("--top-p", type=float, metavar="X", help="sample from the likeliest share of probability")
    add("--seed", type=int, default=0, metavar="N", help="default 0")
    add("--num-samples", type=int, default=1, metavar="N", help="of each prompt; default 1")
    add("--json", action="store_true", help="one JSON object a sample: prompt and text")


def run_generate(args: argparse.Namespace) -> None:
    from jaxlm.generation import Settings, generate
    from jaxlm.loading import load
    from jaxlm.training.loop import keep_compiled_programs

    require(args.num_samples >= 1, "num_samples", "at least 1", args.num_samples)
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "seed")
    settings = {name: getattr(args, name) for name in names}
    Settings(**settings)  # complains before a model is loaded
    keep_compiled_programs()
    prompts = [prompt for prompt in args.prompt for _ in range(args.num_samples)]
    texts = generate(load(args.source), prompts, **settings)
    for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        if args.json:
            print(json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False))
        else:
            print("---\n" * (i > 0) + prompt + text)


VERBS = {
    "generate": Verb("continue prompts with a trained model", declare_generate, run_generate),
}


def build_parser() -> Parser:
    parser = Parser(prog="jaxlm", description="Small language models in JAX.")
    parser.add_argument("--version", action="version", version=f"jaxlm {jaxlm.__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        verb.declare(verbs.add_parser(name, help=verb.summary, description=verb.summary))
    return parser


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
    before = signal.signal(signal.SIGINT, leave)
    try:
        try:
            check_verb(words)
            args = build_parser().parse_args(words)
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


if __name__ == "__main__":
    sys.exit(main())
