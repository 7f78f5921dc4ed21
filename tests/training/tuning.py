"""Small fine-tunings: rows for every task, and the config of a run on them."""

from tests.training.runs import tiny

GOOD, BAD = (
    ["真好 the best", "很好 fine and good", "good 好"],
    ["不行 the worst", "差 bad", "糟 bad"],
)
PRETRAIN = {"steps": 6, "eval_every": 6, "checkpoint_every": 6, "batch_size": 4}
TUNE = {"steps": 6, "eval_every": 3, "checkpoint_every": 2, "batch_size": 4, "log_every": 1}


def write(folder, name, lines):
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


FILES = {
    "sequence_classification": "reviews.tsv",
    "token_classification": "tags.jsonl",
    "question_answering": "questions.jsonl",
    "chat": "chat.jsonl",
    "masked_lm": "text.txt",
    "causal_lm": "text.txt",
}


def tuned(home, run, task="sequence_classification", source="encoder", **sections):
    """The config of a small fine-tuning; a section of None is left as the defaults have it."""
    settings = {
        "run": {"dir": str(run)},
        "model": {"num_layers": 4, "num_heads": 4, "d_model": 128, "dropout": 0.0},  # the defaults
        "data": {"source": str(home / FILES[task]), "seq_len": 16, "val_fraction": 0.25},
        "finetune": {"task": task, "init_from": source and str(home / source)},
        "train": TUNE,
        "sample": {"every": 0},
    }
    for name, fields in sections.items():
        settings[name] = settings.get(name, {}) | fields
    return tiny(home, **settings)
