"""Helpers of tests that change a directory and compare what comes of it."""

import json

import jax
import numpy as np

from jaxlm.cli import main


def assert_same(params, expected):
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def edit(path, **changes):
    theirs = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(theirs | changes))


def through_a_run(theirs, tmp_path):
    """The directory that an imported and exported model is written to."""
    assert main(["import", str(theirs), str(tmp_path / "run"), "--json"]) == 0
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "again"), "--json"]) == 0
    return tmp_path / "again"
