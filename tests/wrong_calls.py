"""Calls of the library that are mistakes; run as a program it prints what each of them raises.

A program of its own, as the test session checks annotations, which a user's program does not.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp

import jaxlm
from jaxlm import generation
from jaxlm.artifact import Loaded
from jaxlm.config import DataConfig, JaxlmError, ModelConfig
from jaxlm.data import prepare
from jaxlm.models import make_model
from jaxlm.tasks.inference import evaluate_text
from jaxlm.tokenizer import Tokenizer, train_tokenizer
from tests.fixtures.tiny import params_of, tiny_model


def decoder() -> Loaded:
    tokenizer = train_tokenizer("char", ["今天天气真好，写代码。the cats walk"])
    model, variables = tiny_model("learned", vocab_size=tokenizer.vocab_size, max_seq_len=32)
    return Loaded(model, variables["params"], tokenizer, model.config)


def classifier(m: Loaded) -> Loaded:
    head: dict[str, Any] = {"head": "sequence_classification", "labels": ("a", "b")}
    config = dataclasses.replace(m.config, architecture="encoder", **head).resolved()
    model = make_model(config)
    return Loaded(model, params_of(model, jnp.zeros((1, 1), int)), m.tokenizer, config)


def names() -> dict[str, Any]:
    """What the calls of the table are made of."""
    m = decoder()
    kinds = (DataConfig, ModelConfig, Tokenizer)
    functions = (prepare, evaluate_text, train_tokenizer)
    return {
        "m": m,
        "clf": classifier(m),
        "ids": [[1, 2, 3]],
        "generate": jaxlm.generate,
        "tokens": jaxlm.generate_tokens,
        "generation": generation,
        "jaxlm": jaxlm,
        "jnp": jnp,
        **{thing.__name__: thing for thing in (*kinds, *functions)},
    }


def tell(table: Path, known: dict[str, Any]) -> None:
    """Print each call of a table, what its sentence must say and what was told; and the memory."""
    found = []
    for line in table.read_text(encoding="utf-8").splitlines()[1:]:
        call, sentence = line.split(" -> ")
        try:
            eval(call, known)
            told = "nothing raised"
        except JaxlmError as error:
            told = str(error)
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
        found.append([call, sentence, told])
    # Of this program alone: what getrusage tells goes on from the process that started it.
    status = Path("/proc/self/status")
    told = status.read_text(encoding="utf-8") if status.exists() else "VmHWM: 0 kB"
    kilobytes = int(told.partition("VmHWM:")[2].split()[0])
    json.dump({"told": found, "kilobytes": kilobytes}, sys.stdout, ensure_ascii=False)


if __name__ == "__main__":
    tell(Path(__file__).with_suffix(".txt"), names())
