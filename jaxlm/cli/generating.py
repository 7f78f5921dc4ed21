"""`jaxlm generate` and `jaxlm chat`: prompts continued, and a dialogue."""

import argparse
import io
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlm.cli.verb import Verb
from jaxlm.cli.weights import declare_weights, opened, own_text, read_text, weighted
from jaxlm.config import JaxlmError
from jaxlm.config.schema import require

if TYPE_CHECKING:
    from jaxlm.artifact import Loaded
    from jaxlm.generation import Chat

# Options that become settings of the same name.
SETTINGS = (
    ("--temperature", float, 1.0, "X", "0 is greedy; default 1"),
    ("--top-k", int, None, "N", "sample among the N likeliest tokens"),
    ("--top-p", float, None, "X", "sample from the likeliest share of probability"),
    ("--min-p", float, None, "X", "only tokens with this share of the likeliest's probability"),
    ("--repetition-penalty", float, 1.0, "X", "above 1: tokens seen before become less likely"),
    ("--presence-penalty", float, 0.0, "X", "subtracted once for a token generated before"),
    ("--frequency-penalty", float, 0.0, "X", "subtracted for each time it was generated"),
    ("--no-repeat-ngram", int, None, "N", "no N tokens twice in the same order"),
    ("--min-new-tokens", int, 0, "N", "before so many the text does not end"),
    ("--seed", int, 0, "N", "default 0"),
)
SOURCE = "a run directory, a checkpoint or a Hugging Face model"


def declare_settings(parser: argparse.ArgumentParser, max_new_tokens: int) -> None:
    add = parser.add_argument
    help = f"at most; default {max_new_tokens}"
    add("--max-new-tokens", type=int, default=max_new_tokens, metavar="N", help=help)
    for name, kind, default, metavar, help in SETTINGS:
        add(name, type=kind, default=default, metavar=metavar, help=help)
    add("--stop", action="append", default=[], metavar="TEXT", help="ends a text; may be repeated")
    past = "past the model's context: go on with the last half of it, or refuse; default slide"
    add("--past-context", choices=("slide", "refuse"), default="slide", help=past)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a command line, checked before a model is loaded."""
    from jaxlm.generation import Settings

    names = ["max_new_tokens", "past_context"]
    names += [option[0].removeprefix("--").replace("-", "_") for option in SETTINGS]
    settings = {name: getattr(args, name) for name in names}
    Settings(**settings)
    return settings


def declare_generate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help=SOURCE)
    add("--prompt", action="append", default=[], metavar="TEXT", help="may be repeated")
    add("--prompts-file", metavar="FILE", help="a prompt a line; of .jsonl its field prompt")
    add("--num-samples", type=int, default=1, metavar="N", help="of each prompt; default 1")
    declare_settings(parser, 64)
    add("--num-beams", type=int, metavar="N", help="beam search, of which --num-samples are shown")
    add("--length-penalty", type=float, metavar="X", help="of beams; default 1")
    add("--regex", metavar="PATTERN", help="the continuation matches it")
    add("--json-schema", metavar="FILE", help="the continuation is JSON of this schema")
    add("--lookup", action="store_true", help="speed: propose what followed the same tokens before")
    add("--draft", metavar="RUN", help="speed: a smaller model of the same vocabulary proposes")
    declare_weights(parser, "the prompts")
    add("--stream", action="store_true", help="print the text as it is generated")
    show = "show each token with its probability, and the runners-up with theirs"
    add("--show-probabilities", action="store_true", help=show)
    add("--json", action="store_true", help="one JSON object a sample: prompt and text")


def run_generate(args: argparse.Namespace) -> None:
    settings = settings_of(args)
    require(args.num_samples >= 1, "num_samples", "at least 1", args.num_samples)
    prompts = read_prompts(args)
    one_of(args, "stream", "show_probabilities", "num_beams")
    one_of(args, "lookup", "draft", "num_beams", "regex", "json_schema")
    one_of(args, "stream", "json")
    check_beams(args)
    schema = None if args.json_schema is None else read_text(args.json_schema)
    check_constraint(args.regex, schema)
    loaded = weighted(
        args, lambda fp32: [fp32.tokenizer.encode_prompt(prompt) for prompt in prompts]
    )
    if args.num_beams is not None:
        print_samples(args, beam_samples(args, loaded, prompts, settings))
        return
    from jaxlm import generation

    settings |= {"stop_strings": args.stop, "regex": args.regex, "json_schema": schema}
    settings["speculation"] = speculation_of(args, loaded)
    prompts = [prompt for prompt in prompts for _ in range(args.num_samples)]
    if args.show_probabilities:
        show_probabilities(args, prompts, generation.explain(loaded, prompts, **settings))
    elif args.stream:
        for i, prompt in enumerate(prompts):
            print("---\n" * (i > 0) + prompt, end="", flush=True)
            for piece in generation.stream(loaded, prompt, **settings, row=i):
                print(piece, end="", flush=True)
            print()
    else:
        texts = generation.generate(loaded, prompts, **settings)
        pairs = zip(prompts, texts, strict=True)
        print_samples(args, ({"prompt": prompt, "text": text} for prompt, text in pairs))


def check_beams(args: argparse.Namespace) -> None:
    """Raise JaxlmError for numbers out of range, and for options that would change nothing."""
    if args.num_beams is None:
        if args.length_penalty is not None:
            raise JaxlmError("--length-penalty is for --num-beams")
        return
    require(args.num_beams >= 1, "num_beams", "at least 1", args.num_beams)
    if args.num_samples > args.num_beams:
        raise JaxlmError(f"{args.num_beams} beams do not give {args.num_samples} samples")
    if args.length_penalty is not None:
        finite = math.isfinite(args.length_penalty)
        require(finite, "length_penalty", "finite", args.length_penalty)
    defaults = [(name, default) for name, _, default, *_ in SETTINGS]
    for name, default in [*defaults, ("--stop", []), ("--past-context", "slide")]:
        if getattr(args, name.removeprefix("--").replace("-", "_")) != default:
            raise JaxlmError(f"{name} does not go with --num-beams, which would ignore it")


def check_constraint(regex: str | None, json_schema: str | None) -> None:
    """Complain of what text must match before a model is loaded."""
    from jaxlm.generation.constraints import grammar_of

    grammar_of(regex, json_schema)


def read_prompts(args: argparse.Namespace) -> list[str]:
    prompts = list(args.prompt)
    if args.prompts_file is not None:
        path = args.prompts_file
        lines = read_text(path).split("\n")
        try:
            read = json.loads if path.endswith(".jsonl") else str
            rows = [read(line) for line in lines if line.strip()]
        except (ValueError, RecursionError) as error:
            raise JaxlmError(f"{path} holds a line that is not JSON: {error}") from None
        prompts += [
            row["prompt"] if isinstance(row, dict) and "prompt" in row else row for row in rows
        ]
        if not all(isinstance(prompt, str) for prompt in prompts):
            raise JaxlmError(f'{path} holds a line that is neither a string nor {{"prompt": ...}}')
    if not prompts:
        raise JaxlmError("there is nothing to continue; give --prompt or --prompts-file")
    return prompts


def one_of(args: argparse.Namespace, *names: str) -> None:
    values = {"--" + name.replace("_", "-"): getattr(args, name) for name in names}
    given = [name for name, value in values.items() if value is not None and value is not False]
    if len(given) > 1:
        raise JaxlmError(f"{' and '.join(given)} do not go together")


def speculation_of(args: argparse.Namespace, loaded: "Loaded") -> Any:
    from jaxlm.generation import DraftModel, Lookup
    from jaxlm.generation.text import causal

    if args.draft is not None:
        draft = opened(args.draft)
        if draft.tokenizer.backend.get_vocab() != loaded.tokenizer.backend.get_vocab():
            raise JaxlmError(f"{args.draft} has another vocabulary than {args.source}")
        return DraftModel(causal(draft), draft.params)
    return Lookup() if args.lookup else None


def beam_samples(
    args: argparse.Namespace, loaded: "Loaded", prompts: list[str], settings: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    from jaxlm.generation import best_texts

    found = best_texts(
        loaded,
        prompts,
        max_new_tokens=settings["max_new_tokens"],
        num_beams=args.num_beams,
        num_best=args.num_samples,
        length_penalty=1.0 if args.length_penalty is None else args.length_penalty,
    )
    for prompt, texts in zip(prompts, found, strict=True):
        for text, score in texts:
            yield {"prompt": prompt, "text": text, "score": score}


def print_samples(args: argparse.Namespace, samples: Iterator[dict[str, Any]]) -> None:
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


def declare_chat(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help=SOURCE)
    add("--system", metavar="TEXT", help="what the model is told before the dialogue")
    declare_settings(parser, 256)
    declare_weights(parser, "what the model itself answers")


def run_chat(args: argparse.Namespace) -> None:
    """Answer the lines of standard input, until it ends or one says /exit."""
    settings = settings_of(args) | {"stop_strings": args.stop}
    loaded = weighted(args, lambda fp32: [own_text(fp32, args.system)])
    from jaxlm.generation import Chat

    chat = Chat(loaded, args.system, **settings)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # so that one bad line is not the last
    interactive = sys.stdin.isatty()
    if interactive:
        print("/reset forgets the dialogue, /save FILE writes it, /exit ends.")
    while True:
        try:
            line = input("> " if interactive else "").strip()
        except EOFError:
            return
        if line == "/exit":
            return
        if line.startswith("/"):
            obey(chat, *line.split(maxsplit=1))
        elif line:
            answer(chat, line)


def answer(chat: "Chat", line: str) -> None:
    """Print the reply to a line; a mistake is told and the dialogue goes on."""
    try:
        if any("\ud800" <= character <= "\udfff" for character in line):
            raise JaxlmError("the line is not UTF-8 text")
        for piece in chat.reply(line):
            print(piece, end="", flush=True)
        print(flush=True)
    except JaxlmError as error:
        print(f"error: {error}", file=sys.stderr)


def obey(chat: "Chat", command: str, argument: str | None = None) -> None:
    """Carry out a line that begins with a slash; a mistake is told and the dialogue goes on."""
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


GENERATE = Verb("continue prompts with a trained model", declare_generate, run_generate)
CHAT = Verb("talk with a trained model", declare_chat, run_chat)
