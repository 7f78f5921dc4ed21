"""Kill one of two processes of a run again and again; what they finish equals a run left alone.

    python scripts/check_processes.py [--kills 30] [--seed 0]

A run of 300 steps is started in two processes, which exchange by gloo. At random moments, every
third of them while a checkpoint is being written, one of the two gets SIGKILL or SIGTERM, and as
soon as it has ended the other is ended as well, if it has not ended by itself. The same command is
then given again. Each time every checkpoint must be whole, as `jaxlm doctor` sees it; at the end
metrics, samples and the last checkpoint must equal those of an undisturbed run bit for bit. The
exit status is 1 if anything else happened.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["PYTHONPATH"] = str(ROOT)

from jaxlm.training.doctor import examine  # noqa: E402
from tests.parallel.launching import TRAIN, finish, named, start, wait_all, write_settings  # noqa: E402
from tests.training.runs import assert_same_run  # noqa: E402

STEPS = 300
FIELDS = {"steps": STEPS, "checkpoint_every": 10, "eval_every": 25}
ENDED = {0, 2, 130, -signal.SIGKILL, -signal.SIGABRT}  # 2: told; abort: JAX misses another process


def rows_written(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def disturb(settings: Path, random: np.random.Generator, kind: int, in_save: bool) -> list[int]:
    """Start two processes, and signal one at a random moment; their exit statuses."""
    run = settings.parent / "run"
    command = [sys.executable, str(TRAIN), "--config", str(settings)]
    both = start(command, named(2), settings.parent / "temporary")
    target = rows_written(run) + int(random.integers(1, 12))
    victim, delay = both[int(random.integers(2))], float(random.uniform(0, 0.2))
    while all(process.poll() is None for process in both):
        saving = any((run / "checkpoints").glob("*tmp*"))
        if rows_written(run) >= target and (saving or not in_save):
            time.sleep(0 if in_save else delay)
            victim.send_signal(kind)
            break
        time.sleep(0.001)
    return [done.returncode for done in wait_all(both)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random, wrong, statuses = np.random.default_rng(arguments.seed), [], Counter()
    with tempfile.TemporaryDirectory() as home:
        whole = finish(write_settings(Path(home) / "whole", train=FIELDS), 2)
        settings = write_settings(Path(home) / "cut", train=FIELDS)
        cut = Path(home) / "cut" / "run"
        kills = 0
        while kills < arguments.kills:
            kind = random.choice([signal.SIGKILL, signal.SIGTERM])
            codes = disturb(settings, random, int(kind), in_save=kills % 3 == 2)
            if codes == [0, 0]:  # it was finished before: begin anew
                wrong += compare(cut, whole)
                settings = write_settings(Path(home) / f"cut{kills}", train=FIELDS)
                cut = settings.parent / "run"
                continue
            kills += 1
            statuses.update(codes)
            if set(codes) - ENDED:
                wrong.append(f"kill {kills}: exit statuses {codes}")
            if (cut / "config.yaml").exists():
                found = [f for f in examine(cut).findings if f.condition == "damaged"]
                wrong += [f"kill {kills}: {finding.told}" for finding in found]
        finish(settings, 2)
        wrong += compare(cut, whole)
    print(f"{kills} kills, exit statuses {dict(statuses)}; {len(wrong)} wrong")
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))


def compare(run: Path, whole: Path) -> list[str]:
    try:
        assert_same_run(run, whole)
    except AssertionError as error:
        return [f"{run} is not the undisturbed run: {str(error)[:300]}"]
    return []


if __name__ == "__main__":
    main()
