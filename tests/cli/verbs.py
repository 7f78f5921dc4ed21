"""Verbs called as a user calls them, and rows that runs of tests learn from."""

import json

from jaxlm.cli import main
from jaxlm.training import fit
from tests.training.runs import tiny

FOXES = [("好", "good fox"), ("差", "lazy dog"), ("好", "quick fox"), ("差", "dog")]
ROWS = [(label, f"{text} {name}") for name in "abcdef" for label, text in FOXES]
FEW = {"steps": 2, "eval_every": 2, "checkpoint_every": 2, "batch_size": 4}


def train(folder, name, sections):
    """A run of two steps in folder/name."""
    run = {"run": {"dir": str(folder / name)}, "train": FEW, "sample": {"every": 0}}
    fit(tiny(folder, **run, **sections))


def said(capsys, *words):
    """The JSON that a command prints."""
    assert main([*map(str, words)]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words):
    """The one sentence on stderr that a command ends with."""
    assert main([*map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    return captured.err
