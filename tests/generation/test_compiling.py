"""Requests of all kinds share a handful of compiled programs."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from jaxlm.generation import generate_tokens
from jaxlm.models import CausalLM
from tests.fixtures.tiny import tiny_model


@contextlib.contextmanager
def compiled():
    """A list with an entry for each program that XLA compiles meanwhile, whoever asks for it."""
    programs: list[str] = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            programs.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield programs
    jax.monitoring.unregister_event_duration_listener(listen)


def test_twenty_prompt_lengths_compile_a_handful_and_options_nothing():
    model, variables = tiny_model("learned", max_seq_len=256, num_layers=1)
    lengths = range(3, 223, 11)
    assert len(lengths) == 20

    def request(length: int, **options) -> None:
        ids = np.ones((1, length), np.int32)
        options = {"max_new_tokens": 20} | options
        generate_tokens(model, variables["params"], ids, **options)

    with compiled() as programs:
        for length in lengths:
            request(length)
    assert 0 < len(programs) <= 5
    with compiled() as programs:
        request(5, temperature=0.0)
        request(6, temperature=0.3, top_k=4)
        request(7, top_p=0.5, seed=9)
        request(8, top_k=11, top_p=0.7, stop_tokens=(3, 4), pad_id=5)
        request(9, max_new_tokens=33)
        equal = CausalLM(dataclasses.replace(model.config))  # the same model, made again
        generate_tokens(equal, variables["params"], np.ones((1, 5), np.int32))
    assert not programs


# Batches of 2, 4 and 8 rows have programs of their own. In those of 8, a step of 2 rows would take
# 1.3 times as long (GPT-2 124M, two cores); one of 8 in a cache twice as long, 1.1 to 1.5 times.
@pytest.mark.parametrize(
    ("most_rows", "most_programs"), [(1, 12), pytest.param(8, 30, marks=pytest.mark.slow)]
)
def test_a_hundred_random_requests_compile_few_programs(most_rows, most_programs):
    jax.clear_caches()  # or what an earlier test compiled would not be counted
    model, variables = tiny_model("rotary", max_seq_len=1024, num_layers=1)
    generator = np.random.default_rng(0)
    seen: set[tuple[int, int]] = set()
    with compiled() as programs:
        for _ in range(100):
            new = int(generator.integers(1, 200))
            lengths = generator.integers(1, 1000 - new, size=generator.integers(1, most_rows + 1))
            # One request of each kind of cache is decoded far; what more tokens do is known.
            size = int(max(lengths)) + new
            kind = (len(lengths) - 1).bit_length(), max(128, 1 << (size - 1).bit_length())
            stop = range(8) if kind in seen else []
            seen.add(kind)
            generate_tokens(
                model,
                variables["params"],
                generator.integers(19, size=(len(lengths), max(lengths))),
                lengths,
                max_new_tokens=new,
                temperature=float(generator.choice([0.0, 0.7, 1.3])),
                top_k=int(generator.integers(1, 30)) if generator.random() < 0.5 else None,
                top_p=float(generator.uniform(0.1, 1)),
                min_p=float(generator.choice([0.0, 0.1])),
                repetition_penalty=float(generator.uniform(1, 2)),
                frequency_penalty=float(generator.uniform(-1, 1)),
                no_repeat_ngram=int(generator.integers(1, 5)) if generator.random() < 0.5 else None,
                banned_tokens=generator.integers(19, size=generator.integers(4)).tolist(),
                stop_tokens=stop,
                seed=int(generator.integers(1000)),
            )
    assert 0 < len(programs) <= most_programs


def test_batches_of_near_sizes_share_their_programs():
    model, variables = tiny_model("rotary", num_layers=1)

    def request(batch_size: int, length: int) -> None:
        ids = np.arange(batch_size * length).reshape(batch_size, length) % 19
        generate_tokens(model, variables["params"], ids, max_new_tokens=5)

    request(8, 3)
    with compiled() as programs:
        for size in (5, 6, 7):
            request(size, 4)
    assert not programs
