"""Small fine-tunings: rows for every task, and the config of a run on them."""

import pytest

from jaxlm.config import build_config
from tests.training.runs import sections_of

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
    "seq2seq": "pairs.tsv",
    "span_corruption": "text.txt",
    "masked_lm": "text.txt",
    "causal_lm": "text.txt",
}


def assert_alike(ours, theirs):
    """Answers of two programs: numbers to 1e-5, all else the same."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(theirs, list | tuple):
        for mine, other in zip(ours, theirs, strict=True):
            assert_alike(mine, other)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=1e-5)
    else:
        assert ours == theirs


def tuned(home, run, name="sequence_classification", source="encoder", **sections):
    """The config of a small fine-tuning, with fields replaced, section by section."""
    base = sections_of(home) | {
        "run": {"dir": str(run)},
        "model": {},
        "data": {"source": str(home / FILES[name]), "seq_len": 16, "val_fraction": 0.25},
        "task": {"name": name},
        "finetune": {"init_from": source and str(home / source)},
        "train": TUNE,
        "sample": {"every": 0},
    }
    for section, fields in sections.items():
        base[section] = base.get(section, {}) | fields
    return build_config(base)
