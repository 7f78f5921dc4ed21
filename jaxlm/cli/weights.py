"""`--weights int8`: the model in a quarter of the memory, and a line that tells what it costs."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.config import JaxlmError

if TYPE_CHECKING:
    from jaxlm.artifact import Loaded

SAID = 64  # tokens that a model says of itself, to be compared on


def declare_weights(parser: argparse.ArgumentParser, text: str) -> None:
    add = parser.add_argument
    help = "int8 takes a quarter of the memory; what it costs is told; default fp32"
    add("--weights", choices=("fp32", "int8"), default="fp32", help=help)
    add("--quality-text", metavar="FILE", help=f"where int8 is compared with fp32; default {text}")


def read_text(path: str) -> str:
    """The text of a file in UTF-8, with a byte order mark or without, its lines ended by \\n."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise JaxlmError(f"{path} is not UTF-8 text: byte {error.start} is wrong") from None


def opened(source: str) -> "Loaded":
    from jaxlm.loading import load
    from jaxlm.runtime import keep_compiled_programs

    keep_compiled_programs()
    return load(source)


def weighted(args: argparse.Namespace, texts: "Callable[[Loaded], list[list[int]]]") -> "Loaded":
    """The model of a command, with the weights asked for.

    What int8 saves and costs is told on standard error, measured on the tokens that `texts` gives
    where no file is named.
    """
    if args.quality_text is not None and args.weights != "int8":
        raise JaxlmError("--quality-text is for --weights int8")
    loaded = opened(args.source)
    if args.weights == "int8":
        from jaxlm.generation.quantizing import give_back

        loaded = quantized_and_told(args, loaded, texts)
        give_back()
    return loaded


def quantized_and_told(
    args: argparse.Namespace, loaded: "Loaded", texts: "Callable[[Loaded], list[list[int]]]"
) -> "Loaded":
    from jaxlm.generation import compare_params, quantized
    from jaxlm.generation.quantizing import num_bytes
    from jaxlm.generation.text import causal

    model = causal(loaded)
    if args.quality_text is None:
        rows = texts(loaded)
    else:
        rows = [loaded.tokenizer.encode(read_text(args.quality_text))]
    other = quantized(loaded)
    before, after = (num_bytes(params) / 1e6 for params in (loaded.params, other.params))
    digits = 0 if after >= 10 else 3
    told = f"int8: {after:.{digits}f} MB of weights instead of {before:.{digits}f}"
    if max(map(len, rows)) > 1:
        found = compare_params(model, loaded.params, other.params, rows)
        told += (
            f"; over {found.num_tokens} tokens KL divergence {found.divergence:.2g} nats a token, "
            f"perplexity {found.perplexity:.4g} -> {found.other_perplexity:.4g}"
        )
    else:
        told += "; the text is too short to measure the quality on, give --quality-text"
    print(told, file=sys.stderr)
    return other


def own_text(loaded: "Loaded", system: str | None) -> list[int]:
    """The tokens of a dialogue in which the model answers nothing in particular."""
    from jaxlm.generation import Chat, GenerationError

    chat = Chat(loaded, system, max_new_tokens=SAID)
    try:
        for _ in chat.reply(""):
            pass
    except GenerationError:  # by its template this dialogue has no tokens
        return []
    assert chat.prefix is not None  # as after every reply
    return chat.prefix.tokens
