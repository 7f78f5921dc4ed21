"""`jaxlm generate`: continue prompts."""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlm.cli.output import Verb, declare_source
from jaxlm.cli.samples import print_pieces, print_samples, show_probabilities, tell_reasons
from jaxlm.config import JaxlmError
from jaxlm.config.schema import require
from jaxlm.generation.options import OPTIONS, GenerationOptions

if TYPE_CHECKING:
    from jaxlm.artifact import Loaded

DECLARED = [option for option in OPTIONS.values() if option.metavar or option.choices]


def declare_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Declare the options of generation; `defaults` replace those of the library."""
    for option in DECLARED:
        default = defaults.get(option.name, option.default)
        kind: dict[str, Any] = {"choices": option.choices}
        if option.is_number:
            kind = {"type": option.type, "metavar": option.metavar}
        shown = f"{default:g}" if isinstance(default, float) else default
        help = option.help if default is None else f"{option.help}; default {shown}"
        parser.add_argument(spelled(option.name), default=default, help=help, **kind)
    taken = "use the options in the model's generation_config.json that are not given here"
    parser.add_argument("--suggested", action="store_true", help=taken)
    stop = "ends a text; may be repeated"
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help=stop)


def spelled(name: str) -> str:
    """The command-line option for a name."""
    return "--" + name.replace("_", "-")


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """The generation options of a command line, checked before a model is loaded."""
    options = {option.name: getattr(args, option.name) for option in DECLARED}
    GenerationOptions(**options)
    return options


def with_suggested(
    args: argparse.Namespace, loaded: "Loaded", options: dict[str, Any]
) -> dict[str, Any]:
    """The options, with those that the model's files suggest if `--suggested`, else a hint."""
    from jaxlm.hub import suggested_options

    found = suggested_options(loaded.origin)
    if args.suggested:
        asked = {name for name in found if options[name] != OPTIONS[name].default}
        options = options | {name: value for name, value in found.items() if name not in asked}
        GenerationOptions(**options)
    elif found:
        told = ", ".join(f"{spelled(name)} {value}" for name, value in found.items())
        print(f"{args.source} suggests {told}; --suggested takes that", file=sys.stderr)
    return options


def declare_weights(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    help = "int8 takes a quarter of the memory; default fp32"
    add("--weights", choices=("fp32", "int8"), default="fp32", help=help)
    add("--quality-text", metavar="FILE", help="compare int8 with fp32 on this text first")


def declare_generate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    declare_source(parser)
    add("--prompt", action="append", default=[], metavar="TEXT", help="may be repeated")
    add("--prompts-file", metavar="FILE", help="one prompt per line; in .jsonl, its field prompt")
    add("--num-samples", type=int, default=1, metavar="N", help="of each prompt; default 1")
    declare_options(parser)
    add(
        "--num-beams",
        type=int,
        metavar="N",
        help="beam search; --num-samples of the beams are shown",
    )
    add(
        "--length-penalty", type=float, metavar="X", help="length penalty of beam search; default 1"
    )
    add("--regex", metavar="PATTERN", help="generate only text that matches it")
    add(
        "--json-schema",
        metavar="SCHEMA",
        help="generate only JSON of this schema: a file, or {...}",
    )
    add(
        "--lookup",
        action="store_true",
        help="speculate: propose tokens that followed the same ones before",
    )
    add("--draft", metavar="RUN", help="speculate: a smaller model with the same vocabulary")
    declare_weights(parser)
    add("--stream", action="store_true", help="print the text as it is generated")
    show = "show each token with its probability, and the runners-up with theirs"
    add("--show-probabilities", action="store_true", help=show)
    add(
        "--json",
        action="store_true",
        help="one JSON object a sample: prompt, text and the reason of its end",
    )


def run_generate(args: argparse.Namespace) -> None:
    options = options_of(args)
    require(args.num_samples >= 1, "num_samples", "at least 1", args.num_samples)
    prompts = read_prompts(args)
    one_of(args, "stream", "show_probabilities", "num_beams")
    one_of(args, "lookup", "draft", "num_beams", "regex", "json_schema")
    one_of(args, "stream", "json")
    check_beams(args)
    schema = args.json_schema
    if schema is not None and not schema.lstrip().startswith("{"):
        schema = read_text(schema)
    from jaxlm import generation
    from jaxlm.generation.constraints import grammar_of
    from jaxlm.generation.text import completions

    grammar_of(args.regex, schema)  # whether it can be read, before a model is loaded
    loaded = load_with_weights(args)
    options = with_suggested(args, loaded, options)
    if args.num_beams is not None:
        print_samples(args, beam_samples(args, loaded, prompts, options))
        return
    options |= {"stop_strings": args.stop, "regex": args.regex, "json_schema": schema}
    options["speculation"] = speculation_of(args, loaded)
    prompts = [prompt for prompt in prompts for _ in range(args.num_samples)]
    if args.show_probabilities:
        show_probabilities(args, prompts, generation.explain(loaded, prompts, **options))
    elif args.stream:
        reasons = []
        for i, prompt in enumerate(prompts):
            print("---\n" * (i > 0) + prompt, end="", flush=True)
            reasons.append(print_pieces(generation.stream(loaded, prompt, **options, row=i)))
            print()
        tell_reasons(args, reasons, options)
    else:
        found = completions(loaded, prompts, **options)
        samples = zip(prompts, found, strict=True)
        print_samples(args, ({"prompt": p, "text": t, "reason": r} for p, (t, r) in samples))
        tell_reasons(args, [reason for _, reason in found], options)


def check_beams(args: argparse.Namespace) -> None:
    """Raise JaxlmError for values out of range, and for options that beam search would ignore."""
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
    defaults = {option.name: option.default for option in DECLARED} | {"stop": []}
    del defaults["max_new_tokens"]
    for name, default in defaults.items():
        if name == "temperature" and args.temperature == 0:
            continue  # beam search is greedy too
        if getattr(args, name) != default:
            raise JaxlmError(f"{spelled(name)} does not go with --num-beams, which would ignore it")


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
    values = {spelled(name): getattr(args, name) for name in names}
    given = [name for name, value in values.items() if value is not None and value is not False]
    if len(given) > 1:
        raise JaxlmError(f"{' and '.join(given)} do not go together")


def speculation_of(args: argparse.Namespace, loaded: "Loaded") -> Any:
    from jaxlm.generation import DraftModel, Lookup
    from jaxlm.generation.text_batch import generating

    if args.draft is not None:
        draft = load_model(args.draft)
        if draft.tokenizer.backend.get_vocab() != loaded.tokenizer.backend.get_vocab():
            raise JaxlmError(f"{args.draft} has another vocabulary than {args.source}")
        return DraftModel(generating(draft), draft.params)
    return Lookup() if args.lookup else None


def beam_samples(
    args: argparse.Namespace, loaded: "Loaded", prompts: list[str], options: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    from jaxlm.generation import best_texts

    found = best_texts(
        loaded,
        prompts,
        max_new_tokens=options["max_new_tokens"],
        num_beams=args.num_beams,
        num_best=args.num_samples,
        length_penalty=1.0 if args.length_penalty is None else args.length_penalty,
    )
    for prompt, texts in zip(prompts, found, strict=True):
        for text, score in texts:
            yield {"prompt": prompt, "text": text, "score": score}


def read_text(path: str) -> str:
    """The text of a file in UTF-8, with a byte order mark or without, its lines ended by \\n."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise JaxlmError(f"{path} is not UTF-8 text: byte {error.start} is wrong") from None


def load_model(source: str) -> "Loaded":
    from jaxlm.loading import load
    from jaxlm.runtime import keep_compiled_programs

    keep_compiled_programs()
    return load(source)


def load_with_weights(args: argparse.Namespace) -> "Loaded":
    """The model of a command, with `--weights`; what int8 saves is printed on standard error."""
    if args.quality_text is not None and args.weights != "int8":
        raise JaxlmError("--quality-text is for --weights int8")
    loaded = load_model(args.source)
    if args.weights == "int8":
        from jaxlm.runtime import return_freed_memory

        loaded = quantized_with_report(args, loaded)
        return_freed_memory()
    return loaded


def quantized_with_report(args: argparse.Namespace, loaded: "Loaded") -> "Loaded":
    from jaxlm.generation import compare_params, quantized
    from jaxlm.generation.quantize import num_bytes
    from jaxlm.generation.text_batch import causal

    other = quantized(loaded)
    before, after = (num_bytes(params) / 1e6 for params in (loaded.params, other.params))
    digits = 0 if after >= 10 else 3
    told = f"int8: {after:.{digits}f} MB of weights instead of {before:.{digits}f}"
    if args.quality_text is not None:
        ids = loaded.tokenizer.encode(read_text(args.quality_text))
        found = compare_params(causal(loaded), loaded.params, other.params, [ids])
        told += (
            f"; over {found.num_tokens} tokens KL divergence {found.divergence:.2g} nats a token, "
            f"perplexity {found.perplexity:.4g} -> {found.other_perplexity:.4g}"
        )
    print(told, file=sys.stderr)
    return other


GENERATE = Verb("continue prompts with a trained model", declare_generate, run_generate)
