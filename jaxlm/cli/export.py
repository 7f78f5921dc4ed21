"""`jaxlm export`: a run as a Hugging Face directory, or its adapters as one file."""

import argparse
from pathlib import Path

from jaxlm.cli.output import Verb
from jaxlm.cli.proof import declare_proof, show_proof
from jaxlm.files import check_parent


def declare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help="a run directory or a checkpoint")
    add("target", metavar="DEST", help="the Hugging Face directory to write")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default: the source's")
    trained = "write what the run trained alone, such as its adapters, as DEST.safetensors"
    add("--adapters", action="store_true", help=trained)
    add("--step", type=int, metavar="N", help="the checkpoint to take; default: the best")
    declare_proof(parser)


def run(args: argparse.Namespace) -> None:
    from jaxlm.loading import export, load

    if args.adapters:
        export_adapters(args)
        return
    export(load(args.source, args.step), args.target, args.dtype)
    written = Path(args.target)
    # Read again, so that the proof covers rounding to a smaller type.
    show_proof(args, load(written), written)


def export_adapters(args: argparse.Namespace) -> None:
    from jaxlm.checkpoint import CheckpointError, saved_steps
    from jaxlm.loading import write_trained

    file = Path(args.target)
    if file.suffix != ".safetensors":
        file = file.with_name(f"{file.name}.safetensors")
    check_parent(file)
    steps = saved_steps(Path(args.source) / "checkpoints")
    if steps and args.step not in (None, *steps):
        there = ", ".join(map(str, steps))
        raise CheckpointError(f"{args.source} has no step {args.step}; it has {there}")
    write_trained(args.source, file, args.step)
    print(f"{file}: {file.stat().st_size:,} bytes; jaxlm.load(BASE, trained=...) puts it on")


EXPORT = Verb("a run as a directory that transformers loads", declare, run)
