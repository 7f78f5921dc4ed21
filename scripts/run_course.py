"""Execute the notebooks of docs/course, each in a fresh kernel; the outputs go into build/course.

python scripts/run_course.py            (all eight, under ten minutes on two cores)
python scripts/run_course.py 01 08      (those whose names begin so)

Needs the extra `course`. The documentation shows what is found in build/course.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import jupytext

ROOT = Path(__file__).parents[1]
COURSE, BUILD = ROOT / "docs" / "course", ROOT / "build" / "course"
LIMIT = 300  # seconds a cell
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of names; all if none is given")
    args = parser.parse_args()
    chosen = [
        p for p in sorted(COURSE.glob("[0-9]*.py")) if p.name.startswith(tuple(args.names or [""]))
    ]
    if not chosen:
        sys.exit(f"no notebook of {COURSE} begins with {', '.join(args.names)}")
    BUILD.mkdir(parents=True, exist_ok=True)
    notebooks = []
    for source in chosen:
        notebook = jupytext.read(source)
        notebook.metadata["kernelspec"] = KERNEL
        notebooks.append(BUILD / f"{source.stem}.ipynb")
        jupytext.write(notebook, notebooks[-1])
    # Notebooks see the jaxlm that this file stands beside, installed or not.
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    options = ["--nbmake", "--overwrite", f"--nbmake-timeout={LIMIT}", "--durations=0", "-n", "0"]
    command = [sys.executable, "-m", "pytest", "-q", *options, *map(str, notebooks)]
    sys.exit(subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}).returncode)


if __name__ == "__main__":
    main()
