"""`jaxlm import` and `jaxlm export`: models from Hugging Face directories, and to them."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.cli.showing import show
from jaxlm.cli.verb import Verb
from jaxlm.cli.writing import check_folder

if TYPE_CHECKING:
    from jaxlm.artifact import Loaded


SAMPLED = 16  # tokens of the greedy sample


def declare_import(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SRC", help="a Hugging Face directory or hub id")
    add("target", metavar="DEST", help="the run directory to write")
    add("--revision", metavar="NAME", help="branch, tag or commit of a hub id")
    declare_proof(parser)


def declare_export(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help="a run directory or a checkpoint")
    add("target", metavar="DEST", help="the Hugging Face directory to write")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default: the source's")
    trained = "write what the run trained alone, such as its adapters, as DEST.safetensors"
    add("--adapters", action="store_true", help=trained)
    add("--step", type=int, metavar="N", help="the checkpoint to take; default: the best")
    declare_proof(parser)


def declare_proof(parser: argparse.ArgumentParser) -> None:
    verify = "compare the logits with those of transformers, which must be installed"
    parser.add_argument("--verify", action="store_true", help=verify)
    parser.add_argument("--json", action="store_true", help="the proof as one JSON object")


def run_import(args: argparse.Namespace) -> None:
    from jaxlm.hub.proof import local_copy, prove
    from jaxlm.loading import load, write_run

    source = local_copy(args.source, args.revision)
    loaded = load(source)
    write_run(loaded, args.target)
    show(
        args,
        f"{args.source} -> {args.target}",
        prove(loaded, source if args.verify else None) | sample(loaded),
    )


def run_export(args: argparse.Namespace) -> None:
    from jaxlm.checkpoint import CheckpointError, saved_steps
    from jaxlm.hub.proof import prove
    from jaxlm.loading import export, load, write_trained

    if args.adapters:
        file = Path(args.target)
        if file.suffix != ".safetensors":
            file = file.with_name(f"{file.name}.safetensors")
        check_folder(file)
        steps = saved_steps(Path(args.source) / "checkpoints")
        if steps and args.step not in (None, *steps):
            there = ", ".join(map(str, steps))
            raise CheckpointError(f"{args.source} has no step {args.step}; it has {there}")
        write_trained(args.source, file, args.step)
        print(f"{file}: {file.stat().st_size:,} bytes; jaxlm.load(BASE, trained=...) puts it on")
        return
    loaded = load(args.source, args.step)
    export(loaded, args.target, args.dtype)
    written = Path(args.target)
    # What was written is read again: rounding to a smaller type is part of the proof.
    loaded = load(written)
    show(
        args,
        f"{args.source} -> {args.target}",
        prove(loaded, written if args.verify else None) | sample(loaded),
    )


def sample(loaded: "Loaded") -> dict[str, str]:
    """A few greedy tokens of a model that writes text: a wrong number of heads shows in them."""
    from jaxlm.generation import GenerationError, generate
    from jaxlm.models import CausalLM
    from jaxlm.tokenizer import AbsentTokenizer

    tokenizer = loaded.tokenizer
    if isinstance(tokenizer, AbsentTokenizer) or not isinstance(loaded.model, CausalLM):
        return {}
    try:
        text = generate(loaded, [""], max_new_tokens=SAMPLED, temperature=0)[0]
    except GenerationError:  # no token opens a text: the first one does
        first = tokenizer.decode([0])
        text = first + generate(loaded, [first], max_new_tokens=SAMPLED, temperature=0)[0]
    return {"greedy": json.dumps(text, ensure_ascii=False)}


IMPORT = Verb("a Hugging Face model as a run directory", declare_import, run_import)
EXPORT = Verb("a run as a directory that transformers loads", declare_export, run_export)
