"""How `jaxlm generate` shows texts: whole or as they come, token by token, and why they ended."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxlm.generation.batch import Reason


def print_pieces(pieces: "Generator[str, None, Reason]") -> "Reason":
    """Print a text as it comes; why it ended."""
    while True:
        try:
            print(next(pieces), end="", flush=True)
        except StopIteration as end:
            return end.value


def tell_reasons(
    args: argparse.Namespace, reasons: "Sequence[Reason]", options: dict[str, Any]
) -> None:
    """Say on stderr where texts are shorter than asked for, or cut before what they must match."""
    most, asked = options["max_new_tokens"], args.regex or args.json_schema
    told = {
        "stop_string": f"ended before {most} tokens at a --stop text",
        "match": f"ended before {most} tokens, as nothing can follow what matches",
    }
    if asked is not None:
        told["length"] = f"cut at {most} tokens before the match was whole: raise --max-new-tokens"
    for reason, count in Counter(reasons).items():
        if reason in told and not args.json:
            print(f"{count} of {len(reasons)} texts {told[reason]}", file=sys.stderr)


def print_samples(args: argparse.Namespace, samples: Iterable[dict[str, Any]]) -> None:
    for i, sample in enumerate(samples):
        if args.json:
            print(json.dumps(sample, ensure_ascii=False))
        else:
            print("---\n" * (i > 0) + sample["prompt"] + sample["text"])


def show_probabilities(args: argparse.Namespace, prompts: list[str], rows: list[list]) -> None:
    """A line a token: the token, its probability, and the likeliest others."""
    for i, (prompt, tokens) in enumerate(zip(prompts, rows, strict=True)):
        if args.json:
            shown = [token._asdict() for token in tokens]
            print(json.dumps({"prompt": prompt, "tokens": shown}, ensure_ascii=False))
            continue
        print("---\n" * (i > 0) + prompt)
        for token in tokens:
            choices = [(token.text, token.probability), *token.others]
            print("  " + " / ".join(f"{visible(text)} {p:.2f}" for text, p in choices))


def visible(text: str) -> str:
    """A token as it can be seen on a line: a space as an open box, a newline as an arrow."""
    return text.replace(" ", "\u2423").replace("\n", "\u21b5").replace("\t", "\u21e5")
