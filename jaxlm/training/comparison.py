"""Runs beside one another: what their configs differ in, their results, and how sure one may be.

Runs that differ in the seed alone are one group, whose results have a mean and a standard error.
Two groups are compared by a paired t test over the seeds that both have: a seed sets the initial
weights and the order of the data, and what it does to both alike cancels out.
"""

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from jaxlm.config import ConfigError, JaxlmError, build_config, read_yaml, to_mapping
from jaxlm.files import read_rows_of
from jaxlm.training.recorded_config import flat, not_compared
from jaxlm.training.run_directory import MetricsRow

# Fields by which runs of one group may differ; those that do not affect training may as well.
SEED = ("run.seed", "run.name")
MOST_NAMED = 3  # settings in the label of a group; with more, it is called by its first run
TESTED = ("best_val_loss", "final_val_loss", "best_val_metric", "final_train_loss")
MEASURED = ("steps", "seconds", "tokens_per_second")


@dataclass
class RunRecord:
    """What a run directory tells of a run, finished or not."""

    path: Path
    settings: dict[str, Any]  # by section.field, as text
    rows: list[MetricsRow]
    summary: dict[str, Any]  # empty for an unfinished run

    @property
    def seed(self) -> int:
        return int(self.settings.get("run.seed") or 0)

    def results(self) -> dict[str, float]:
        """The final numbers by name; those of an unfinished run as far as its rows tell."""
        val = [row["loss"] for row in self.rows if row["split"] == "val"]
        val = [loss for loss in val if loss is not None]
        train = [row["loss"] for row in self.rows if row["split"] == "train"]
        last = [loss for loss in train[-max(1, len(train) // 10) :] if loss is not None]
        found: dict[str, Any] = {
            "best_val_loss": min(val, default=None),
            "final_val_loss": val[-1] if val else None,
            "final_train_loss": fmean(last) if last else None,
            "steps": self.rows[-1]["step"] if self.rows else 0,
        }
        names = ("best_val_metric", *MEASURED)
        found |= {name: self.summary.get(name) for name in names if name in self.summary}
        found |= {f"test {name}": value for name, value in self.summary.get("test", {}).items()}
        return {name: value for name, value in found.items() if isinstance(value, int | float)}


@dataclass
class RunGroup:
    """Runs with the same settings and different seeds."""

    label: str
    runs: list[RunRecord]
    settings: dict[str, Any] = field(default_factory=dict)  # of those that groups differ in

    def by_seed(self, name: str) -> dict[int, float]:
        """A result for each seed; the mean where a seed was run twice."""
        found: dict[int, list[float]] = {}
        for run in self.runs:
            if name in (results := run.results()):
                found.setdefault(run.seed, []).append(results[name])
        return {seed: fmean(values) for seed, values in found.items()}

    def result(self, name: str) -> dict[str, float | None] | None:
        """Mean and standard error of the mean (null for one seed); None where none has it."""
        values = list(self.by_seed(name).values())
        if not values:
            return None
        error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        return {"mean": fmean(values), "standard_error": error, "seeds": len(values)}


class PairedTest(NamedTuple):
    """A paired t test of b against a: the mean of b - a over common seeds, two-sided p."""

    metric: str
    a: str
    b: str
    seeds: int
    difference: float
    t: float | None  # null where all differences are equal
    p: float | None


def read_run(path: Path) -> RunRecord:
    """What a run directory holds of config, metrics and summary. Raises: JaxlmError."""
    if not (path / "config.yaml").is_file():
        raise JaxlmError(f"{path} is no run directory: it has no config.yaml")
    settings = dict(flat(read_yaml(path / "config.yaml")))
    if "run_format" not in settings:
        raise JaxlmError(f"the config.yaml in {path} was not written by a run")
    metrics = path / "metrics.jsonl"
    rows, _ = read_rows_of(metrics.read_bytes() if metrics.is_file() else b"")
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        summary = {}
    return RunRecord(path, settings, rows, summary)


def read_runs(paths: Iterable[str | Path]) -> list[RunRecord]:
    """The runs at some paths; a folder that is none stands for the runs in it.

    Raises: JaxlmError where there is none.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        inside = []
        if not (path / "config.yaml").exists() and path.is_dir():
            inside = sorted(p for p in path.iterdir() if (p / "config.yaml").is_file())
        found |= dict.fromkeys(inside or [path])
    return [read_run(path) for path in found]


def grouped(runs: Sequence[RunRecord]) -> list[RunGroup]:
    """The runs by their settings, in the order in which they first occur."""
    passed_over = {*not_compared(), *SEED}
    groups: dict[tuple, RunGroup] = {}
    for run in runs:
        settings = {k: v for k, v in run.settings.items() if k not in passed_over}
        key = tuple((name, str(settings[name])) for name in sorted(settings))
        groups.setdefault(key, RunGroup("", [], settings)).runs.append(run)
    found = list(groups.values())
    names = [
        name
        for name in differing([group.settings for group in found])
        if not all(follows(group.runs[0], name) for group in found)
    ]
    for group in found:
        group.settings = {name: group.settings.get(name) for name in names}
    for group, label in zip(found, labels_of(found), strict=True):
        group.label = label
    return found


def labels_of(groups: Sequence[RunGroup]) -> list[str]:
    """A short name of each group: its own settings where these are few, else its first run's."""
    names = list(groups[0].settings)
    short = [name.partition(".")[2] for name in names]
    titles = [s if short.count(s) == 1 else n for n, s in zip(names, short, strict=True)]
    if 0 < len(names) <= MOST_NAMED:
        values = [map(as_written, group.settings.values()) for group in groups]
        return [", ".join(map("=".join, zip(titles, v, strict=True))) for v in values]
    called = [str(group.runs[0].settings.get("run.name") or "run") for group in groups]
    same = len(set(called)) < len(called)
    return [str(group.runs[0].path) for group in groups] if same else called


def as_written(value: Any) -> str:
    """A setting as a config writes it."""
    return "null" if value is None else value if isinstance(value, str) else json.dumps(value)


def differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    """The fields that have not the same value in all of them."""
    names = dict.fromkeys(name for one in settings for name in one)
    return [name for name in names if len({str(one.get(name)) for one in settings}) > 1]


def follows(run: RunRecord, name: str) -> bool:
    """Whether a field has the value that the others give it, as d_ff by default from d_model."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in run.settings.items():
        section, _, field_name = key.partition(".")
        if field_name and key != name:
            sections.setdefault(section, {})[field_name] = value
    try:
        others = dict(flat(to_mapping(build_config(sections).resolved())))
        whole = build_config(read_yaml(run.path / "config.yaml"))
    except ConfigError:
        return False
    default = others.get(name)
    return default is not None and default == dict(flat(to_mapping(whole))).get(name)


def result_names(groups: Sequence[RunGroup]) -> list[str]:
    """The results that some run has: the losses first, then those of the test split and speeds."""
    found = {name for group in groups for run in group.runs for name in run.results()}
    return [*(n for n in TESTED if n in found), *sorted(found - {*TESTED, *MEASURED}), *MEASURED]


def paired_tests(groups: Sequence[RunGroup]) -> list[PairedTest]:
    """For each two groups with two seeds or more in common, a test of each loss and metric."""
    from scipy.stats import ttest_rel

    tests = []
    names = [name for name in result_names(groups) if name not in MEASURED]
    for (a, b), name in itertools.product(itertools.combinations(groups, 2), names):
        ours, theirs = a.by_seed(name), b.by_seed(name)
        common = sorted(ours.keys() & theirs.keys())
        if len(common) < 2:
            continue
        left, right = [ours[s] for s in common], [theirs[s] for s in common]
        differences = [y - x for x, y in zip(left, right, strict=True)]
        t = p = None
        if len(set(differences)) > 1:
            found: Any = ttest_rel(right, left)
            t, p = float(found.statistic), float(found.pvalue)
        tests.append(PairedTest(name, a.label, b.label, len(common), fmean(differences), t, p))
    return tests


def comparison(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Runs, differences, groups and tests as one object for JSON."""
    groups = grouped(runs)
    named = [(group, run) for group in groups for run in group.runs]
    return {
        "runs": [
            {
                "path": str(run.path),
                "group": group.label,
                "seed": run.seed,
                "finished": bool(run.summary),
                "results": run.results(),
            }
            for group, run in named
        ],
        "differences": {name: [g.settings[name] for g in groups] for name in groups[0].settings},
        "groups": [
            {
                "label": group.label,
                "runs": [str(run.path) for run in group.runs],
                "seeds": sorted({run.seed for run in group.runs}),
                "results": {name: group.result(name) for name in result_names(groups)},
            }
            for group in groups
        ],
        "tests": [test._asdict() for test in paired_tests(groups)],
    }
