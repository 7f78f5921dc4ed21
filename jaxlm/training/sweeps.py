"""Every combination of some settings and seeds, trained one after the other."""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from jaxlm.config import Config, ConfigError, JaxlmError, load_config
from jaxlm.config.schema import near_keys
from jaxlm.config.sections import section_keys
from jaxlm.training.fit import fit
from jaxlm.training.run_directory import RunDirectory, RunError

Grid = dict[str, list[str]]
Train = Callable[[Config], object]


class Planned(NamedTuple):
    """A run of a sweep: its name, which is that of its folder, and its overrides."""

    name: str
    words: list[str]


def read_grid(words: Sequence[str]) -> Grid:
    """The values of each field, from words such as optim.learning_rate=1e-3,3e-3.

    A value may be a list in brackets. Raises: ConfigError.
    """
    grid: Grid = {}
    for word in words:
        key, _, text = word.partition("=")
        values = [value.strip() for value in re.findall(r"(?:\[[^\]]*\]|[^,])+", text)]
        if key not in section_keys():
            near = near_keys(key.rpartition(".")[2], section_keys())
            hint = f"did you mean {near[0]}?" if near else "python train.py --help lists the fields"
            raise ConfigError(f"--grid {word} names no field of a config; {hint}")
        if not values or not all(values):
            raise ConfigError(f"--grid {word} needs values, as in {key}=1,2")
        if len(set(values)) < len(values) or key in grid:
            raise ConfigError(f"--grid gives {key} or a value of it twice")
        if key in ("run.dir", "run.name", "run.resume", "run.overwrite"):
            raise ConfigError(f"{key} cannot be in a grid: each run has a folder of its own")
        grid[key] = values
    return grid


def planned_runs(
    name: str | Path, overrides: Sequence[str], grid: Grid, seeds: int | None
) -> tuple[Path, list[Planned]]:
    """The folder of a sweep, and its runs: each combination with each of so many seeds.

    Seeds count up from `run.seed`. The folder is `run.dir`, else runs/<run.name>_sweep. Raises:
    ConfigError, RunError where a run stands in the folder itself.
    """
    base = load_config(name, overrides)
    folder = Path(base.run.dir or f"runs/{base.run.name}_sweep")
    if (folder / "config.yaml").exists():
        raise RunError(f"{folder} is a run itself; choose another --run.dir for the sweep")
    whole = dict(grid)
    if seeds is not None:
        if "run.seed" in grid:
            raise ConfigError("--seeds and run.seed in --grid are two ways of the same: give one")
        whole["run.seed"] = [str(base.run.seed + i) for i in range(seeds)]
    if not whole:
        raise ConfigError("a sweep needs --grid section.field=A,B or --seeds N")
    short = [key.partition(".")[2] for key in whole]
    titles = [s if short.count(s) == 1 else key for key, s in zip(whole, short, strict=True)]
    runs = []
    for values in itertools.product(*whole.values()):
        called = ",".join(map("=".join, zip(titles, values, strict=True)))
        called = re.sub(r"[^\w.=,+-]+", "_", called)
        words = [*overrides, "--run.dir", str(folder / called), "--run.name", called]
        for key, value in zip(whole, values, strict=True):
            words += [f"--{key}", value]
        runs.append(Planned(called, words))
    names = [run.name for run in runs]
    if same := next((n for n in names if names.count(n) > 1), None):
        raise ConfigError(f"two combinations would be written to {folder / same}")
    return folder, runs


def sweep(name: str | Path, runs: Sequence[Planned], train: Train = fit) -> Iterator[str]:
    """Train each run; those that are finished are passed over, unfinished ones go on.

    Yields the name of each run that failed, after its reason was printed. Raises: ConfigError where
    no combination is a config.
    """
    configs: dict[str, Config | JaxlmError] = {}
    for run in runs:
        try:
            configs[run.name] = load_config(name, run.words)
        except ConfigError as error:
            configs[run.name] = error
    wrong = [config for config in configs.values() if isinstance(config, JaxlmError)]
    if len(wrong) == len(runs):
        raise wrong[0]
    for i, (called, config) in enumerate(configs.items()):
        try:
            if isinstance(config, JaxlmError):
                raise config
            done = is_done(config)
            print(f"run {i + 1} of {len(runs)}, {called}" + ": finished before" * done, flush=True)
            if not done:
                train(config)
        except (JaxlmError, OSError, MemoryError, RuntimeError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            print(f"run {i + 1} of {len(runs)}, {called}, failed: {reason}", flush=True)
            yield called
        jax.clear_caches()  # the programs of this run, which the next may not need


def is_done(config: Config) -> bool:
    """Whether a run with this config is finished. Raises: RunError where another one is there."""
    path = Path(str(config.run.dir))
    if config.run.overwrite or not (path / "summary.json").exists():
        return False
    with RunDirectory(config) as run:
        return run.decide() == "finished"
