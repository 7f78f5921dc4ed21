"""Best val loss of a recipe over several seeds: mean, standard error and time.

    python scripts/measure_recipe.py gpt_tiny [--seeds 3] [--section.field value ...]

Runs the training command once a seed, in a temporary directory, and prints what each run's
summary.json says. Seconds are those of the whole command, start-up and compilation included.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAIN = Path(__file__).resolve().parent.parent / "train.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--seeds", type=int, default=3)
    arguments, overrides = parser.parse_known_args()
    losses, times = [], []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            command = [sys.executable, str(TRAIN), "--config", arguments.config]
            command += ["--run.seed", str(seed), "--run.dir", str(run), *overrides]
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began)
            losses.append(json.loads((run / "summary.json").read_text())["best_val_loss"])
        print(f"seed {seed}: best val loss {losses[-1]:.4f} in {times[-1]:.0f} s", flush=True)
    error = statistics.stdev(losses) / len(losses) ** 0.5 if len(losses) > 1 else 0.0
    print(
        f"{arguments.config}: mean {statistics.mean(losses):.4f} +- {error:.4f} (standard error), "
        f"{statistics.median(times):.0f} s a run (median)"
    )


if __name__ == "__main__":
    main()
