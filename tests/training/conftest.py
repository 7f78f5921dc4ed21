"""What files of this folder share: runs to start from, trained once."""

import json

import pytest

from jaxlm.training import fit
from tests.training.runs import tiny
from tests.training.tuning import BAD, GOOD, PRETRAIN, write

TURNS = "今天气真写代码的中年人"


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Pretrained runs of each architecture, and data for every task."""
    folder = tmp_path_factory.mktemp("finetune")
    # No row repeats, or a split would part none of them.
    rated = [(label, text) for label, texts in ((1, GOOD), (0, BAD)) for text in texts]
    reviews = [f"{label}\t{text} {c}" for c in "天气写代" for label, text in rated]
    write(folder, "reviews.tsv", ["label\ttext", *reviews])
    words = ["the", "quick", "brown", "lazy", "dog", "fox", "jumps", "over", "天", "气", "好", "真"]
    tagged = [{"tokens": [word, "fox", "好"], "tags": ["O", "B-ANI", "O"]} for word in words]
    write(folder, "tags.jsonl", map(json.dumps, tagged))
    asked = [
        {"question": f"who {i}", "context": f"the fox {i}", "answers": "fox"} for i in range(12)
    ]
    write(folder, "questions.jsonl", map(json.dumps, asked))
    write(folder, "chat.jsonl", [json.dumps({"turns": [c, "真好"]}) for c in TURNS])
    write(folder, "pairs.tsv", ["source\ttarget", *(f"{c} the fox\t{c}真好" for c in TURNS)])
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
    both = {"num_layers": 2, "architecture": "encoder_decoder"}
    fit(
        tiny(
            folder,
            run={"dir": str(folder / "encoder_decoder")},
            model=both,
            data={"tokenizer": "bpe", "vocab_size": 300},
            task={"name": "span_corruption"},
            train=PRETRAIN,
            sample={"prompts": None, "every": 6},
        )
    )
    return folder
