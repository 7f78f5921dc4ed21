"""`jaxlm fill`: predict masked tokens."""

import argparse
import json

from jaxlm.cli.output import Verb, declare_source


def declare_fill(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    declare_source(parser)
    add("text", metavar="TEXT", nargs="+", help="a text with [MASK] where a token is missing")
    add("--top", type=int, default=5, metavar="N", help="candidates for each mask; default 5")
    add("--json", action="store_true", help="one JSON object a text: prompt, text, candidates")


def run_fill(args: argparse.Namespace) -> None:
    from jaxlm.generation import fill
    from jaxlm.loading import load
    from jaxlm.runtime import keep_compiled_programs

    keep_compiled_programs()
    for prompt, filled in zip(args.text, fill(load(args.source), args.text, args.top), strict=True):
        if args.json:
            row = {"prompt": prompt, **filled._asdict()}
            print(json.dumps(row, ensure_ascii=False))
            continue
        print(filled.text)
        for candidates in filled.candidates:
            print("  " + "  ".join(f"{token} {chance:.2f}" for token, chance in candidates))


FILL = Verb("predict the masked tokens of a text", declare_fill, run_fill)
