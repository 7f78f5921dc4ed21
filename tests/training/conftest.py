"""What files of this folder share: runs to start from, trained once."""

import json

import pytest

from jaxlm.training import fit
from tests.training.runs import tiny
from tests.training.tuning import BAD, GOOD, PRETRAIN, write


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Pretrained runs of both kinds, and data for every task."""
    folder = tmp_path_factory.mktemp("finetune")
    reviews = [f"{label}\t{text}" for label, texts in ((1, GOOD), (0, BAD)) for text in texts * 4]
    write(folder, "reviews.tsv", ["label\ttext", *reviews])
    tagged = [{"tokens": ["the", "fox", "好"], "tags": ["O", "B-ANI", "O"]}] * 12
    write(folder, "tags.jsonl", map(json.dumps, tagged))
    asked = [
        {"question": f"who {i}", "context": f"the fox {i}", "answers": "fox"} for i in range(12)
    ]
    write(folder, "questions.jsonl", map(json.dumps, asked))
    write(folder, "chat.jsonl", [json.dumps({"turns": ["今天", "真好"]})] * 12)
    bert = {"tokenizer": "wordpiece", "vocab_size": 150, "special_tokens": "cls_sep"}
    for name, model in (("encoder", {"architecture": "encoder"}), ("decoder", {})):
        fit(
            tiny(
                folder,
                run={"dir": str(folder / name)},
                model={"num_layers": 2, **model},
                data=bert,
                task={"name": "masked_lm" if model else "causal_lm"},
                train=PRETRAIN,
                sample={"every": 0},
            )
        )
    return folder
