"""Calls of the library that are mistakes; run as a program it prints what each of them raises.

A program of its own, as the test session checks annotations, which a user's program does not.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import jaxlm
from jaxlm import generation
from jaxlm.artifact import Loaded
from jaxlm.config import JaxlmError
from jaxlm.tokenizer import train_tokenizer
from tests.fixtures.tiny import tiny_model


def make() -> Loaded:
    tokenizer = train_tokenizer("char", ["今天天气真好，写代码。the cats walk"])
    model, variables = tiny_model("learned", vocab_size=tokenizer.vocab_size, max_seq_len=32)
    return Loaded(model, variables["params"], tokenizer, model.config)


def calls(m: Loaded) -> dict[str, Callable[[], Any]]:
    """Each call by what must stand in its error's sentence."""
    ids = [[1, 2, 3]]
    generate, tokens = jaxlm.generate, jaxlm.generate_tokens
    return {
        "prompts must be a list of texts, got None": lambda: generate(m, None),  # pyright: ignore
        "prompts must be a list of texts, got 3": lambda: generate(m, 3),  # pyright: ignore
        "prompts must be a list of texts, got [1": lambda: generate(m, [1]),  # pyright: ignore
        "vocabulary has no 'Z'": lambda: generate(m, ["Z"]),
        "speculation must be Lookup()": lambda: generate(m, ["今"], speculation="lookup"),  # pyright: ignore
        "temperature must be": lambda: generate(m, ["今"], temperature=-1),
        "temperature must be a number": lambda: generate(m, ["今"], temperature="hot"),  # pyright: ignore
        "top_k must be": lambda: generate(m, ["今"], top_k=0),
        "top_k must be a whole number": lambda: generate(m, ["今"], top_k=1.5),  # pyright: ignore
        "top_p must be": lambda: generate(m, ["今"], top_p=2),
        "min_p must be": lambda: generate(m, ["今"], min_p=-1),
        "max_new_tokens must be": lambda: generate(m, ["今"], max_new_tokens=0),
        "max_new_tokens has 2 values for 1 rows": lambda: generate(
            m, ["今"], max_new_tokens=[1, 2]
        ),
        "past_context must be": lambda: generate(m, ["今"], past_context="wrap"),  # pyright: ignore
        "stop_strings must be a list": lambda: generate(m, ["今"], stop_strings="x"),
        "no option 'temprature'": lambda: generate(m, ["今"], temprature=1),
        "names token 999": lambda: generate(m, ["今"], bias={999: 1.0}),
        "banned_tokens must be": lambda: generate(m, ["今"], banned_tokens="ab"),
        "not both": lambda: generate(m, ["今"], regex="a", json_schema={}),
        "ids must be rows of tokens": lambda: tokens(m.model, m.params, [1, 2]),  # pyright: ignore
        "prompt 0 holds token 99": lambda: tokens(m.model, m.params, [[99]]),  # pyright: ignore
        "has length 9": lambda: tokens(m.model, m.params, ids, [9]),  # pyright: ignore
        "need as many lengths": lambda: tokens(m.model, m.params, ids, [1, 2]),  # pyright: ignore
        "num_beams must be": lambda: generation.best_texts(m, ["今"], num_beams=0),
        "num_best must be": lambda: generation.best_texts(m, ["今"], num_best=9),
        "does not fill masks": lambda: generation.fill(m, ["今"]),
        "no chat template": lambda: generation.Chat(m),
        "the model's head is lm": lambda: jaxlm.predict(m, ["今"]),
        "there is no directory nowhere/at/all": lambda: jaxlm.load("nowhere/at/all"),
        "there is no config file 'gpt_tinny'": lambda: jaxlm.load_config("gpt_tinny"),
        "needs a value": lambda: jaxlm.load_config("gpt_tiny", ["--train.steps"]),
        "model.preset must be one of": lambda: jaxlm.preset("gpt5"),
        "model.d_modle is not a known field": lambda: jaxlm.preset("gpt2", d_modle=3),
        "33 tokens are more than model.max_seq_len 32": lambda: m.model.apply(
            {"params": m.params}, jaxlm.generation.tokens.np.zeros((1, 33), int)
        ),
    }


def main() -> None:
    found = {}
    for name, call in calls(make()).items():
        try:
            call()
            found[name] = "nothing raised"
        except JaxlmError as error:
            found[name] = str(error)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    json.dump(found, sys.stdout, ensure_ascii=False)


if __name__ == "__main__":
    main()
