"""`jaxlm sweep`: train every combination of some settings and seeds, and compare them."""

import argparse

from jaxlm.cli.compare import show_comparison
from jaxlm.cli.evaluate import positive
from jaxlm.cli.output import Verb, check_output, declare_overwrite
from jaxlm.config import JaxlmError, load_config
from jaxlm.runtime import set_up


def declare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", required=True, metavar="NAME_OR_PATH", help="the config of every run")
    values = "values to try, as in optim.learning_rate=1e-3,3e-3; again for another field"
    add("--grid", action="append", default=[], metavar="FIELD=A,B", help=values)
    seeds = "train each combination with so many seeds, from run.seed up"
    add("--seeds", type=positive, metavar="N", help=seeds)
    add("--png", metavar="FILE", help="write the learning curves, one over the other, to this file")
    declare_overwrite(parser, "--png")
    parser.epilog = (
        "Other words are fields of the config, as in --train.steps 500. The runs stand in "
        "--run.dir, by default runs/<run.name>_sweep; the same command again goes on."
    )


def run(args: argparse.Namespace) -> None:
    if args.png:
        check_output(args.png, args.overwrite)
    set_up(load_config(args.config, args.fields).train.deterministic)
    from jaxlm.training.comparison import read_runs
    from jaxlm.training.sweeps import planned_runs, read_grid, sweep

    grid = read_grid(args.grid)
    folder, runs = planned_runs(args.config, args.fields, grid, args.seeds)
    failed = list(sweep(args.config, runs))
    trained = [folder / run.name for run in runs if run.name not in failed]
    if len(trained) > 1:
        show_comparison(read_runs(trained), as_json=False, png=args.png)
    if failed:
        raise JaxlmError(f"{len(failed)} of {len(runs)} runs failed: {'; '.join(failed)}")


SWEEP = Verb("train every combination of some settings and seeds", declare, run, takes_fields=True)
