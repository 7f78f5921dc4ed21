"""Imports run one way through the house, and `import jaxlm` stays light."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What only some commands need is imported where it is used; torch and TensorFlow never are.
HEAVY = "datasets matplotlib optax orbax pandas pyarrow tensorflow tokenizers torch transformers"


def run_program(program: str) -> str:
    """The program's output. A process of its own: import-linter sets up logging anew."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_layers_of_the_house_hold():
    run_program(
        "import sys; from importlinter.cli import lint_imports;"
        "sys.exit(lint_imports(no_cache=True, no_logo=True))"
    )


def test_import_jaxlm_brings_in_nothing_heavy():
    program = f"import jaxlm, sys; print(*sys.modules.keys() & set({HEAVY.split()}))"
    assert run_program(program).split() == []
