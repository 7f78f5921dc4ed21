"""Kill, damage and starve runs, and check that each goes on exactly or says why not in a sentence.

    python scripts/check_recovery.py [--quick] [--only kills damages disk] [--seed 0]

kills    kill -9 at random moments, every other one while a checkpoint is being written, over five
         kinds of run; what the same command then finishes equals a run that nothing disturbed.
damages  flipped bytes, missing and cut files in each part of a run, of the token cache, and of
         adapters and their base: the same command recovers exactly, or says what is wrong; so does
         `jaxlm.load`.
disk     a disk of 3 MB in several fill levels (a tmpfs, which takes the right to mount; else a
         limit on the size of files): one sentence, and exact when there is room again.

`--quick` takes a few of each. The exit status is 1 if anything else happened.
"""

import argparse
import contextlib
import io
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["PYTHONPATH"] = str(ROOT)

import jaxlm  # noqa: E402
from jaxlm.config import JaxlmError, build_config  # noqa: E402
from jaxlm.training import fit  # noqa: E402
from jaxlm.training.trainer import Trainer  # noqa: E402
from scripts.damages import damages, damages_of_adapters  # noqa: E402
from tests.training.runs import assert_same_run, rows, sections_of  # noqa: E402

ENCODER = {"architecture": "encoder"}
WORDPIECE = {"tokenizer": "wordpiece", "vocab_size": 80}
VARIANTS: dict[str, dict[str, dict]] = {
    "gpt": {},
    "masked lm": {"model": ENCODER, "data": WORDPIECE, "task": {"name": "masked_lm"},
                  "sample": {"prompts": None}},
    "muon": {"optim": {"name": "muon"}},
    "lora": {"finetune": {"lora_rank": 2}},
    "ema": {"optim": {"ema_decay": 0.9}},
}  # fmt: skip
PARTS = ("kills", "damages", "disk")
KILLS, STEPS, STOP = 6, 240, 20  # kills of a variant; steps of its run; where a run is stopped
DISK_BYTES = 3_000_000
LEVELS = [12_000, 60_000, 140_000, 260_000, 400_000, 600_000]  # bytes left free


def sections(folder: Path, base: Path, variant: str, steps: int) -> dict[str, dict]:
    """The settings of a variant's run in `folder`; adapters stand on the run in `base`."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = sections_of(folder)
    whole["train"]["steps"] = steps
    for name, fields in VARIANTS[variant].items():
        whole[name] = whole.get(name, {}) | fields
    if variant == "lora":
        whole["finetune"]["init_from"] = str(base)
        whole["model"] = {}
    return whole


def start(folder: Path, settings: dict, limit: int | None = None) -> subprocess.Popen:
    """The training command on the settings, as a user types it."""
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    words = [sys.executable, str(ROOT / "train.py"), "--config", str(file)]

    # A function before the program starts makes a fork, which can block where JAX has threads.
    before = None
    if limit is not None:
        before = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, preexec_fn=before)


def last_step(run: Path) -> int:
    """About the newest step in the metrics, which have a row every second step."""
    metrics = run / "metrics.jsonl"
    return 2 * metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def check_kills(home: Path, count: int, names: list[str], random: np.random.Generator) -> list[str]:
    wrong = []
    for name in names:
        base = home / "base" / "run"
        whole, cut = home / f"{name} whole", home / f"{name} cut"
        process = start(whole, sections(whole, base, name, STEPS))
        _, errors = process.communicate()
        if process.returncode != 0:
            wrong.append(f"{name}: {errors}")
            continue
        kills = writing = 0
        while kills < count:
            process = start(cut, sections(cut, base, name, STEPS))
            target = last_step(cut / "run") + int(random.integers(2, 2 * STEPS // count // 2))
            delay, in_save = float(random.uniform(0, 0.1)), kills % 2 == 1
            while process.poll() is None:
                far = last_step(cut / "run") >= target
                if far and (not in_save or any((cut / "run" / "checkpoints").glob("*tmp*"))):
                    time.sleep(0 if in_save else delay)
                    process.kill()
                time.sleep(0.0005)
            process.communicate()
            if process.returncode == 0:
                break
            kills, writing = kills + 1, writing + in_save
        _, errors = start(cut, sections(cut, base, name, STEPS)).communicate()
        found = difference(cut / "run", whole / "run")
        print(f"kills  {name}: {kills} kills, {writing} of them in a save: {found or 'equal'}")
        if found:
            wrong.append(f"{name}: {found} {errors}")
    return wrong


def difference(left: Path, right: Path) -> str | None:
    try:
        assert_same_run(left, right)
    except (AssertionError, OSError, ValueError, IndexError) as error:
        return f"not equal: {' '.join(str(error).split())[:300] or type(error).__name__}"
    return None


def check_damages(home: Path, every: int, variant: str, base: Path) -> list[str]:
    adapters = variant == "lora"
    os.environ["JAXLM_CACHE"] = str(home / "cache")
    if adapters:
        shutil.copytree(base, home / "stopped" / "base")
    settings = sections(home / "whole", home / "stopped/base/run", variant, 2 * STOP + 4)
    fit(build_config(settings))
    settings["run"]["dir"] = str(home / "stopped" / "run")
    log = Trainer._log

    def stop(self: Trainer, step: int, metrics: dict) -> None:
        log(self, step, metrics)
        if step > STOP:
            raise InterruptedError

    Trainer._log = stop
    with contextlib.suppress(InterruptedError):
        fit(build_config(settings))
    Trainer._log = log
    steps = sorted(int(path.name) for path in (home / "stopped/run/checkpoints").iterdir())
    names = {"NEWEST": str(steps[-1]), "BEST": str(steps[0])}
    shutil.copytree(os.environ["JAXLM_CACHE"], home / "stopped" / "cache")
    wrong, results = [], {"equal": 0, "a sentence": 0}
    cases = damages_of_adapters() if adapters else damages()
    for pattern, harm, everywhere in list(cases)[::every]:
        case = home / "damaged"
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(home / "stopped", case)
        os.environ["JAXLM_CACHE"] = str(case / "cache")
        for name, step in names.items():
            pattern = pattern.replace(name, step)
        files = sorted(case.glob(pattern), key=lambda file: file.stat().st_size)
        for file in files if everywhere else files[-1:]:
            harm(file)
        result = "there is no such file"
        if files:
            settings["run"] = {"dir": str(case / "run")}
            if adapters:
                settings["finetune"]["init_from"] = str(case / "base" / "run")
            result = outcome(case, settings, home / "whole/run")
        what = f"{harm.__name__} {pattern}"
        print(f"damage {what}: {result}")
        kind = next((kind for kind in results if result.startswith(kind)), None)
        if kind is None:
            wrong.append(f"{what}: {result}")
        else:
            results[kind] += 1
    print(f"damages of {variant}: {results}, {len(wrong)} wrong")
    return wrong


def outcome(case: Path, settings: dict, whole: Path) -> str:
    """What the same command makes of a damaged run, and `jaxlm.load` before it."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                jaxlm.load(case / "run")
            except JaxlmError as error:
                if "\n" in str(error):
                    return f"many lines: {error}"
            fit(build_config(settings))
    except JaxlmError as error:
        return "many lines" if "\n" in str(error) else f"a sentence: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    found = difference(case / "run", whole)
    told = [line for line in said.getvalue().splitlines() if " is not as it was at step" in line]
    return "equal" if found is None else f"a sentence: {told[0]}" if told else found


def check_disk(home: Path, levels: list[int]) -> list[str]:
    whole = home / "whole disk"
    start(whole, sections(whole, home, "gpt", 48)).communicate()
    disk, wrong = home / "disk", []
    disk.mkdir()
    for level in levels:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(disk)]
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
        try:
            settings = sections(home / "full", home, "gpt", 48)
            settings["run"]["dir"] = str(disk / "run")
            filler = disk / "filler"
            if mounted:
                free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
                filler.write_bytes(bytes(free - level))
            process = start(home / "full", settings, None if mounted else level // 12)
            _, errors = process.communicate()
            filler.unlink(missing_ok=True)
            last = errors.strip().splitlines()
            sentence = process.returncode == 2 and len(last) == 1 and last[0].startswith("error: ")
            reached = len(rows(disk / "run"))
            _, again = start(home / "full", settings).communicate()
            found = difference(disk / "run", whole / "run")
            told = last[0][:150] if last else "no error"
            print(f"disk   {level} bytes free, {reached} rows: {told}: {found or 'then equal'}")
            if not sentence or found:
                wrong.append(f"{level}: {process.returncode}, {errors[-3000:]} {found} {again}")
        finally:
            if mounted:
                subprocess.run(["umount", str(disk)], check=True)
            else:
                shutil.rmtree(disk / "run", ignore_errors=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few of each, for CI")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["JAXLM_CACHE"] = str(home / "cache")
        began = time.perf_counter()
        base = sections(home / "base", home, "gpt", 6)
        start(home / "base", base | {"sample": {"every": 0}}).communicate()
        if "kills" in args.only:
            names = ["gpt"] if args.quick else list(VARIANTS)
            random = np.random.default_rng(args.seed)
            wrong += check_kills(home, 2 if args.quick else KILLS, names, random)
        if "disk" in args.only:
            wrong += check_disk(home, LEVELS[1::3] if args.quick else LEVELS)
        if "damages" in args.only:
            every = 6 if args.quick else 1
            for variant in ("gpt", "lora"):
                wrong += check_damages(home / f"{variant} damages", every, variant, home / "base")
        print(f"{len(wrong)} wrong in {time.perf_counter() - began:.0f} s")
    for case in wrong:
        print(f"WRONG {case}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
