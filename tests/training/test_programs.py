"""The compiled training step: what XLA is told about the products of a long run on a CPU."""

import platform

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxlm.config import ModelConfig, load_config
from jaxlm.models import make_model
from jaxlm.tasks.causal_lm import causal_lm
from jaxlm.training import programs
from jaxlm.training.state import TrainState, train_step
from jaxlm.training.trainer import Update

SHAPE = ModelConfig(vocab_size=17, max_seq_len=8, d_model=24, num_layers=1, num_heads=2)
IDS = jnp.arange(32).reshape(4, 8)
BATCH = {"ids": IDS % 17, "targets": (IDS + 1) % 17, "weights": jnp.ones((4, 8))}


def started(steps: int) -> tuple[TrainState, Update]:
    config = load_config("gpt_tiny", ["--train.steps", str(steps)])
    model = make_model(SHAPE)
    return programs.compile_and_start(config, model, causal_lm, BATCH, optax.sgd(1.0), {})


@pytest.fixture
def options(monkeypatch):
    """Those that the step is compiled with."""
    given = []
    real = jax.stages.Lowered.compile

    def watched(lowered, options=None):
        given.append(options)
        return real(lowered, options)

    monkeypatch.setattr(jax.stages.Lowered, "compile", watched)
    return given


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN is for x86")
@pytest.mark.filterwarnings("error")
def test_a_long_run_multiplies_by_onednn_and_learns_the_same(options):
    programs.cpu_options()  # compiles a program itself
    options.clear()
    state, update = started(10**9)
    assert options == [programs.ONEDNN]
    plain, metrics = jax.jit(train_step)(state, BATCH)
    ours, same = update(state, BATCH)
    assert float(same["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-6)
    worst = jax.tree.map(lambda a, b: float(abs(a - b).max()), ours.params, plain.params)
    assert max(jax.tree.leaves(worst)) < 1e-5


def test_a_short_run_takes_the_program_that_is_kept_in_the_cache(options):
    started(100)
    assert options == [None]


def test_the_recipe_gpt_tiny_is_a_long_run():
    config = load_config("gpt_tiny", ["--model.vocab_size", "65", "--model.max_seq_len", "64"])
    ids = jax.ShapeDtypeStruct((12, 64), jnp.int32)
    made = programs.make_programs(config, make_model(config.model), causal_lm, None, {})
    assert programs.onednn_pays(made.shapes, {"ids": ids}, config)


def test_a_version_of_xla_without_these_options_compiles_without_them(monkeypatch):
    monkeypatch.setattr(programs, "ONEDNN", {"xla_cpu_no_such_option": True})
    programs.cpu_options.cache_clear()
    assert programs.cpu_options() == {}
    programs.cpu_options.cache_clear()
