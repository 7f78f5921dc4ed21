"""`jaxlm compare` as a user runs it."""

import pytest

from jaxlm.cli import main
from tests.cli.verbs import refused, said
from tests.training.test_comparison import write_run_like


@pytest.fixture
def folder(tmp_path):
    for rate in (1e-3, 3e-3):
        for seed in range(2):
            name = f"{rate:g}_{seed}"
            write_run_like(tmp_path / "runs" / name, rate, seed, 2 - 10 * rate * (1 + seed))
    return tmp_path


def test_compare_prints_differences_results_and_tests(folder, capsys):
    found = said(capsys, "compare", folder / "runs", "--json")
    assert [group["seeds"] for group in found["groups"]] == [[0, 1], [0, 1]]
    assert [len(group["runs"]) for group in found["groups"]] == [2, 2]
    assert main(["compare", str(folder / "runs")]) == 0
    shown = capsys.readouterr().out
    for part in ("optim.learning_rate", "0.003", "best_val_loss", "±", "paired t tests"):
        assert part in shown


def test_compare_draws_curves_and_replaces_no_file(folder, capsys):
    png = folder / "curves.png"
    runs = [str(path) for path in sorted((folder / "runs").iterdir())]
    assert main(["compare", *runs, "--png", str(png)]) == 0
    assert png.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    png.write_bytes(b"a picture of mine")
    assert "is there already" in refused(capsys, "compare", *runs, "--png", png)
    assert png.read_bytes() == b"a picture of mine"


def test_one_run_alone_or_none_is_told(folder, capsys):
    run = next((folder / "runs").iterdir())
    assert "is one run; name the runs" in refused(capsys, "compare", run)
    assert "is no run directory" in refused(capsys, "compare", folder / "nowhere", run)
