"""Generation the slow way: no cache, no batch, a whole forward pass a token."""

from collections.abc import Callable

import jax
import numpy as np

from jaxlm.generation import generate_tokens
from jaxlm.models import CausalLM
from tests.fixtures.tiny import tiny_model

TIE = 1e-4  # nearer logits than these may be told apart differently by another order of summation

Pick = Callable[[np.ndarray, int], int]  # logits (V,) and the number of the token, to a token


class Reference:
    """A tiny random model, and what it generates by the rule of the docstrings, naively."""

    def __init__(self, structure: str, max_seq_len: int):
        self.model: CausalLM
        self.model, variables = tiny_model(structure, max_seq_len=max_seq_len)
        self.params = variables["params"]
        self.apply = jax.jit(self.model.apply)

    def logits(self, window: list[int]) -> np.ndarray:
        ids = np.zeros((1, self.model.config.max_seq_len), np.int32)
        ids[0, : len(window)] = window  # what comes after does not matter to a causal model
        return np.asarray(self.apply({"params": self.params}, ids))[0, len(window) - 1]

    def generate(self, prompt: list[int], num_tokens: int, pick: Pick) -> list[int]:
        limit = self.model.config.max_seq_len
        window, out = list(prompt), []
        for t in range(num_tokens):
            if len(window) > limit:
                window = window[-(limit // 2) :]
            out.append(pick(self.logits(window), t))
            window.append(out[-1])
        return out


def likeliest(logits: np.ndarray, t: int) -> int:
    """The greedy choice, which must be clear."""
    second, first = np.sort(logits)[-2:]
    assert first - second > TIE, "a fixture with a near-tie: choose another seed"
    return int(np.argmax(logits))


def ragged(lengths: list[int], vocab_size: int, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(vocab_size, size=n).tolist() for n in lengths]


def stacked(prompts: list[list[int]]) -> dict[str, np.ndarray]:
    """Prompts as the arguments of generate_tokens, with padding that is not neutral."""
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    ids = np.full((len(prompts), max(lengths)), 7, np.int32)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    return {"ids": ids, "lengths": lengths}


def greedy(model, params, prompts: list[list[int]], num_tokens: int, **settings) -> list[list[int]]:
    """The likeliest tokens after each prompt, all prompts in one batch."""
    batch = stacked(prompts)
    return generate_tokens(
        model, params, **batch, max_new_tokens=num_tokens, temperature=0.0, **settings
    ).tolist()
