"""`jaxlm import`: write a Hugging Face model as a run directory."""

import argparse
from pathlib import Path

from jaxlm.cli.output import Verb
from jaxlm.cli.proof import declare_proof, show_proof


def declare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SRC", help="a Hugging Face directory or hub id")
    add("target", metavar="DEST", help="the run directory to write")
    add("--revision", metavar="NAME", help="branch, tag or commit of a hub id")
    own_risk = "ignore this attribute of config.json, which jaxlm does not know"
    add("--accept", action="append", default=[], metavar="NAME", help=own_risk)
    declare_proof(parser)


def run(args: argparse.Namespace) -> None:
    from jaxlm.hub.weights import download
    from jaxlm.loading import load, write_run

    source = Path(args.source)
    if not source.exists():
        source = download(args.source, args.revision)
    loaded = load(source, accept=args.accept)
    write_run(loaded, args.target)
    show_proof(args, loaded, source, loaded)


IMPORT = Verb("a Hugging Face model as a run directory", declare, run)
