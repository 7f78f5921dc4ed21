"""Rows for tagging names and for answering questions, from templates over the bundled poems.

    python scripts/make_task_data.py data_tasks      writes ner_zh.jsonl and qa_zh.jsonl

Names of poets (PER) and of tunes (TUNE) stand in sentences; questions ask who wrote a line, or to
which tune. The same command writes the same rows.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlm.config import DataConfig
from jaxlm.data import read_corpus

HEADING = re.compile(r"(?P<tune>[^（]+)（(?P<poet>[^）]+)）\n(?P<body>.+)", re.DOTALL)
LINE = re.compile(r"[^，。！？、；\n]{4,12}")
SENTENCES = (
    "{poet}写过一首{tune}。",
    "我最喜欢{poet}的《{tune}》。",
    "“{line}”出自{poet}之手。",
    "读到{tune}里的“{line}”，想起了{poet}。",
    "{tune}这个词牌，{poet}用得最好。",
    "昨夜读词，{line}，不知是谁写的。",
    "{line}，{other}。",
    "比起{poet}，她更爱读{second}的{tune}。",
)
QUESTIONS = (
    ("“{line}”是谁写的？", "poet"),
    ("谁写了“{line}”？", "poet"),
    ("“{line}”用的是什么词牌？", "tune"),
)
FACT = "“{line}”是{poet}的句子，词牌是{tune}。"
PLAIN = re.compile(r"[\u4e00-\u9fff]{2,6}")


class Poem(NamedTuple):
    tune: str
    poet: str
    lines: list[str]


def read_poems() -> list[Poem]:
    """Poems with a plain tune and poet, and at least two lines to quote."""
    poems = []
    for text in read_corpus(DataConfig(source="sample:songci")).documents:
        found = HEADING.match(text)
        if not found or not PLAIN.fullmatch(found["tune"]) or not PLAIN.fullmatch(found["poet"]):
            continue
        lines = LINE.findall(found["body"])
        if len(lines) >= 2 and found["poet"] != "无名氏":
            poems.append(Poem(found["tune"], found["poet"], lines))
    return poems


def draw(poems: list[Poem], random: np.random.Generator) -> dict[str, str]:
    """What a template may name: a poem's poet, tune and two lines, and another poet."""
    poem, second = (poems[i] for i in random.choice(len(poems), 2, replace=False))
    line, other = (poem.lines[i] for i in random.choice(len(poem.lines), 2, replace=False))
    return {
        "poet": poem.poet, "tune": poem.tune, "line": line, "other": other, "second": second.poet
    }  # fmt: skip


def tagged(template: str, values: dict[str, str]) -> dict[str, list[str]]:
    """The characters of a sentence with their tags."""
    kinds = {"poet": "PER", "second": "PER", "tune": "TUNE"}
    tokens: list[str] = []
    tags: list[str] = []
    for part in re.split(r"(\{\w+\})", template):
        name = part.strip("{}") if part.startswith("{") else ""
        text = values[name] if name else part
        kind = kinds.get(name)
        tokens += text
        tags += [f"B-{kind}", *[f"I-{kind}"] * (len(text) - 1)] if kind else ["O"] * len(text)
    return {"tokens": tokens, "tags": tags}


def make_ner(poems: list[Poem], rows: int, random: np.random.Generator) -> Iterator[dict]:
    for _ in range(rows):
        yield tagged(SENTENCES[random.integers(len(SENTENCES))], draw(poems, random))


def make_qa(poems: list[Poem], rows: int, random: np.random.Generator) -> Iterator[dict]:
    """Questions about one of three facts in a context of their sentences, one in ten about none."""
    for _ in range(rows):
        facts = [draw(poems, random) for _ in range(3)]
        asked = draw(poems, random) if random.random() < 0.1 else facts[random.integers(3)]
        question, wanted = QUESTIONS[random.integers(len(QUESTIONS))]
        context, start = "", -1
        for fact in facts:
            if fact is asked:
                start = len(context) + FACT.format(**fact).rindex(fact[wanted])
            context += FACT.format(**fact)
        answers = {"text": [asked[wanted]], "answer_start": [start]} if start >= 0 else None
        yield {
            "question": question.format(**asked),
            "context": context,
            "answers": answers or {"text": [], "answer_start": []},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=12000)
    arguments = parser.parse_args()
    poems = read_poems()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, make in {"ner_zh.jsonl": make_ner, "qa_zh.jsonl": make_qa}.items():
        rows = make(poems, arguments.rows, np.random.default_rng(0))
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (arguments.folder / name).write_text(text, encoding="utf-8")
        print(f"{arguments.folder / name}: {arguments.rows} rows")


if __name__ == "__main__":
    main()
