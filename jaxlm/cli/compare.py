"""`jaxlm compare`: runs beside one another, with seeds taken together."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlm.cli.output import Verb, check_output, declare_overwrite
from jaxlm.config import JaxlmError

if TYPE_CHECKING:
    from jaxlm.training.comparison import RunRecord


def declare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run directories, or a folder of them")
    add("--png", metavar="FILE", help="write the learning curves, one over the other, to this file")
    declare_overwrite(parser, "--png")
    add("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> None:
    from jaxlm.training.comparison import read_runs

    if args.png:
        check_output(args.png, args.overwrite)
    runs = read_runs(args.runs)
    if len(runs) < 2:
        raise JaxlmError(f"{args.runs[0]} is one run; name the runs to compare it with")
    show_comparison(runs, args.json, args.png)


def show_comparison(runs: "Sequence[RunRecord]", as_json: bool, png: str | None) -> None:
    """Print the comparison as tables or as JSON, and draw the curves where a file is named."""
    from jaxlm.training.comparison import comparison, grouped
    from jaxlm.training.plots import plot_curves

    found = comparison(runs)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        show_tables(found)
    if png:
        curves = {group.label: [run.rows for run in group.runs] for group in grouped(runs)}
        plot_curves(Path(png), curves)


def show_tables(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from jaxlm.training.comparison import as_written

    console, groups = Console(), found["groups"]
    labels = [escape(group["label"]) for group in groups]
    if found["differences"]:
        settings = Table("", *labels, title="config")
        for name, values in found["differences"].items():
            settings.add_row(name, *(escape(as_written(value)) for value in values))
        console.print(settings)
    results = Table("", *labels, title="results: mean ± standard error over seeds")
    results.add_row("runs", *(str(len(group["runs"])) for group in groups))
    results.add_row("run.seed", *(", ".join(map(str, group["seeds"])) for group in groups))
    for name in groups[0]["results"]:
        cells = [result_cell(group["results"][name]) for group in groups]
        if any(cells):
            results.add_row(name, *cells)
    console.print(results)
    if unfinished := [run["path"] for run in found["runs"] if not run["finished"]]:
        console.print(f"not finished: {escape(', '.join(unfinished))}", soft_wrap=True)
    if found["tests"]:
        columns = ("b - a", "a", "b", "seeds", "difference", "t", "p")
        tests = Table(*columns, title="paired t tests over the seeds of both")
        for test in found["tests"]:
            t, p = ("" if test[key] is None else f"{test[key]:.3g}" for key in ("t", "p"))
            names = (escape(test[key]) for key in ("metric", "a", "b"))
            tests.add_row(*names, str(test["seeds"]), f"{test['difference']:+.4f}", t, p)
        console.print(tests)


def result_cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    mean, error = result["mean"], result["standard_error"]
    digits = 4 if abs(mean) < 1000 and mean != int(mean) else 0
    told = f"{mean:,.{digits}f}"
    return told if error is None else f"{told} ± {error:,.{max(digits, 1)}f}"


COMPARE = Verb("runs beside one another: configs, curves, results over seeds", declare, run)
