"""`jaxlm import` and `jaxlm export`: Hugging Face models as runs; runs as such, or as adapters."""

import argparse
import dataclasses
from pathlib import Path

from jaxlm.cli.output import Verb, check_output, declare_overwrite
from jaxlm.cli.proof import check_provable, declare_proof, show_proof
from jaxlm.config import JaxlmError


def declare_import(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SRC", help="a Hugging Face directory or hub id")
    add("target", metavar="DEST", help="the run directory to write")
    add("--revision", metavar="NAME", help="branch, tag or commit of a hub id")
    own_risk = "ignore this attribute of config.json, which jaxlm does not know"
    add("--accept", action="append", default=[], metavar="NAME", help=own_risk)
    declare_proof(parser)


def run_import(args: argparse.Namespace) -> None:
    from jaxlm.hub.weights import download
    from jaxlm.loading import load, write_run

    check_provable(args)
    source = Path(args.source)
    if not source.exists():
        source = download(args.source, args.revision)
    loaded = load(source, accept=args.accept)
    write_run(loaded, args.target)
    show_proof(args, loaded, source, loaded)


IMPORT = Verb("a Hugging Face model as a run directory", declare_import, run_import)


def declare_export(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help="a run directory or a checkpoint")
    add("target", metavar="DEST", help="the Hugging Face directory to write")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default: the source's")
    trained = (
        "write only the parameters that the run trained, such as adapters, to DEST.safetensors"
    )
    add("--adapters", action="store_true", help=trained)
    peft = "write the adapters in PEFT's layout, to the directory DEST"
    add("--peft", action="store_true", help=peft)
    base = "the model that a run with frozen weights started from; default: where it was"
    add("--base", metavar="PATH", help=base)
    add("--step", type=int, metavar="N", help="checkpoint to export; default: the best")
    declare_overwrite(parser, "--adapters")
    declare_proof(parser)


def run_export(args: argparse.Namespace) -> None:
    import jax

    from jaxlm.loading import export, load

    if args.adapters or args.peft:
        export_own_weights(args)
        return
    check_provable(args)
    loaded, written = load(args.source, args.step, base=args.base), Path(args.target)
    export(loaded, written, args.dtype)
    if args.dtype:
        rounded = jax.tree.map(lambda weight: weight.astype(args.dtype), loaded.params)
        loaded = dataclasses.replace(loaded, params=rounded)
    show_proof(args, load(written), written, loaded)


def export_own_weights(args: argparse.Namespace) -> None:
    from jaxlm.own_weights import export_adapters, write_trained

    wrong = {"--base": args.base, "--dtype": args.dtype, "--verify": args.verify}
    for option in (name for name, given in wrong.items() if given):
        raise JaxlmError(f"{option} is for a model that is written whole: leave it out")
    if args.adapters and args.peft:
        raise JaxlmError("--adapters writes one file and --peft a directory: give one of them")
    if args.peft:
        export_adapters(args.source, args.target, args.step)
        print(f"{args.target}: adapters in PEFT's layout; jaxlm.load and PEFT open them")
        return
    file = Path(args.target)
    if file.suffix != ".safetensors":
        file = file.with_name(f"{file.name}.safetensors")
    check_output(file, args.overwrite)
    write_trained(args.source, file, args.step)
    print(f"{file}: {file.stat().st_size:,} bytes; jaxlm.load(BASE, trained=...) puts it on")


EXPORT = Verb("a run as a directory that transformers loads", declare_export, run_export)
