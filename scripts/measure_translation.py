"""BLEU of a translation recipe over seeds, beside what needs no model.

    python scripts/measure_translation.py translate_multi30k \\
        --test "multi30k/test_2016_flickr.en.gz + multi30k/test_2016_flickr.de.gz" [--seeds 3]

Trains once a seed with the training command, translates the test pairs by beam search, and prints
BLEU and chrF with sacrebleu's signatures, beside those of copied sources and of the target of the
training source that is nearest by TF-IDF. Without --test the pairs are all of the run's validation
split: those of data.val_source, else those that the run held out.
`--ablate` also trains without each of label smoothing, averaging, dropout (where the recipe has
none, with 0.1) and shared embeddings, at the first seed. `--section.field value` words reach every
run. Seconds are those of the training command alone, start-up and compilation included. It takes
the metrics extra.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jaxlm
from jaxlm.config import Config
from jaxlm.tasks.baselines import neighbour_answers
from jaxlm.tasks.inference import RowEvaluation, evaluate_rows, row_task_of, rows_like_the_run
from jaxlm.tasks.labelled_rows import RowSplits, read_splits
from jaxlm.tasks.metrics import translation_scores
from jaxlm.tasks.seq2seq import Seq2SeqTask

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
ABLATIONS = {
    "no label smoothing": ["--task.label_smoothing", "0"],
    "no averaging": ["--train.average_last", "null"],
    "separate embeddings": ["--model.share_embeddings", "false", "--model.tie_embeddings", "false"],
}


def measure(arguments: argparse.Namespace, seed: int, *overrides: str) -> RowEvaluation:
    """Train with a seed and score the best checkpoint on the test pairs."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, str(TRAIN), "--config", arguments.config]
        command += ["--run.seed", str(seed), "--run.dir", str(run), *arguments.rest, *overrides]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        loaded = jaxlm.load(run)
        pairs = Path(folder) / "held_out.jsonl"
        data = rows_like_the_run(loaded, row_task_of(loaded), arguments.test or str(pairs))
        if arguments.test is None:
            data = dataclasses.replace(data, columns=())
            names = data.text_column, data.label_column
            with pairs.open("w", encoding="utf-8") as out:
                for pair in splits_of(loaded.run_config).val:
                    row = dict(zip(names, (pair.content[0], pair.label), strict=True))
                    out.write(json.dumps(row) + "\n")
        found = evaluate_rows(loaded, data, num_beams=arguments.beams)
    params = jaxlm.num_params(loaded.config)
    told = ", ".join(f"{name} {value:.4g}" for name, value in found.scores.items())
    print(f"  {told}; {params:,} parameters, {seconds:.0f} s", flush=True)
    return found


def splits_of(config: Config | None) -> RowSplits:
    """The pairs that a run of this config learns and holds out."""
    assert config is not None
    return read_splits(
        Seq2SeqTask, config.replace({"data": Seq2SeqTask.missing_columns(config.data)})
    )


def tell_baselines(arguments: argparse.Namespace, found: RowEvaluation) -> None:
    """Scores of copied sources and of the nearest training pair's target."""
    overrides = [*arguments.rest, "--run.seed", "0"]
    train = splits_of(jaxlm.load_config(arguments.config, overrides)).train
    asked, truth = [i.content[0] for i in found.items], [i.label for i in found.items]
    near = neighbour_answers([i.content[0] for i in train], [i.label for i in train], asked)
    for name, texts in (("copied source", asked), ("nearest neighbour", near)):
        scores, _ = translation_scores(truth, texts)
        print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in scores.items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--test", metavar="SOURCE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--ablate", action="store_true")
    arguments, arguments.rest = parser.parse_known_args()
    scores: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        print(f"seed {seed}")
        found = measure(arguments, seed)
        scores.append(found.scores)
        if seed == 0:
            tell_baselines(arguments, found)
            for name, signature in found.signatures.items():
                print(f"{name}: {signature}")
    for name in ("bleu", "chrf"):
        values = [row[name] for row in scores]
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
        print(f"{name}: mean {statistics.mean(values):.2f} +- {error:.2f} (standard error)")
    config = jaxlm.load_config(arguments.config, arguments.rest)
    dropout = "0" if config.model.dropout else "0.1"
    ablations = ABLATIONS | {f"dropout {dropout}": ["--model.dropout", dropout]}
    for name, overrides in ablations.items() if arguments.ablate else ():
        print(name)
        measure(arguments, 0, *overrides)


if __name__ == "__main__":
    main()
