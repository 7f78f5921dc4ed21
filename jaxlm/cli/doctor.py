"""`jaxlm doctor`: whether a run is whole, and from where it can be resumed."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from jaxlm.cli.output import Verb


def declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print a line for each part of the run, and the verdict.

    Returns the exit status: 0 where all is whole, 1 where something is damaged but a checkpoint
    can be read, 2 where none can.
    """
    from jaxlm.training.doctor import examine

    found = examine(Path(args.run))
    if args.json:
        parts = [asdict(finding) for finding in found.findings]
        told = {"status": found.status, "resumes_at": found.resumes_at, "verdict": found.verdict}
        print(
            json.dumps(
                told | {"readable_steps": found.readable, "parts": parts}, ensure_ascii=False
            )
        )
    else:
        width = max(len(finding.part) for finding in found.findings)
        for finding in found.findings:
            whole = "whole: " * (finding.condition == "whole")
            print(f"{finding.part:<{width}}  {whole}{finding.told}".removesuffix(": "))
        print(found.verdict)
    return found.status


DOCTOR = Verb("check all files of a run, and say what can be resumed", declare, run)
