"""The examples of docs/change-a-part.md run as they stand, here for a few steps of a tiny model."""

import sys
import types

import pytest

import jaxlm
from jaxlm.config import load_config
from tests.test_docs import ROOT, blocks

GUIDE = ROOT / "docs" / "change-a-part.md"
BLOCKS = blocks(GUIDE, "python")
TINY = ["--model.num_layers", "1", "--model.d_model", "16", "--model.num_heads", "2"]
TINY += ["--train.steps", "4", "--train.eval_every", "2", "--train.checkpoint_every", "2"]
TINY += ["--optim.warmup_steps", "1", "--sample.every", "0", "--data.seq_len", "16"]
TINY += ["--data.source", "text.txt"]
MOST_LINES = {"task": 60, "part": 20}  # of what one writes oneself, without imports and the run


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder where every recipe is tiny."""
    (tmp_path / "text.txt").write_text("".join(map(chr, range(62, 127))) + "ROMEO: my\n" * 200)

    def load_tiny(name, words=()):
        return load_config(name, [*words, *TINY])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaxlm, "load_config", load_tiny, raising=False)
    return tmp_path


def executed(code, monkeypatch):
    """The names that a script defines; its module can be found, as that of a script can."""
    module = types.ModuleType("own_part")
    monkeypatch.setitem(sys.modules, "own_part", module)
    exec(compile(code, "own_part", "exec"), module.__dict__)
    return vars(module)


def written(code):
    """The lines of a block that are neither imports nor empty."""
    return [line for line in code.splitlines() if line.strip() and "import " not in line]


def test_every_part_is_short():
    assert len(BLOCKS) == 7
    for code in BLOCKS:
        most = MOST_LINES["task" if "(Task)" in code else "part"]
        assert len(written(code)) < most, code


@pytest.mark.slow
@pytest.mark.parametrize("code", [c for c in BLOCKS if "fit(" in c], ids=lambda c: c.split('"')[-2])
def test_parts_of_training_run(code, tiny, monkeypatch, capsys):
    names = executed(code, monkeypatch)
    assert names["loaded"].params
    assert "4 steps in" in capsys.readouterr().out


def test_an_own_attention_function_is_causal(monkeypatch):
    (code,) = [c for c in BLOCKS if "softcapped" in c]
    import jax
    import jax.numpy as jnp

    own = executed(code, monkeypatch)["softcapped_attention"]
    query = jax.random.normal(jax.random.key(0), (1, 2, 3, 5, 4))
    seen = jax.jacobian(lambda key: own(query, key, key, causal=True).sum((0, 1, 2, 4)))(
        jnp.ones((1, 2, 5, 4))
    )
    assert (jnp.triu(jnp.abs(seen).sum((1, 2, 4)), 1) == 0).all()


@pytest.mark.slow
def test_the_sampling_rule_holds(tiny, monkeypatch, capsys):
    (code,) = [c for c in BLOCKS if "rule=" in c]
    config = jaxlm.load_config("gpt_tiny.yaml", ["--run.name", "gpt_tiny"])
    loaded = jaxlm.training.fit(config)
    size = loaded.tokenizer.vocab_size
    capsys.readouterr()
    executed(code.replace("range(65)", f"range({size})"), monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert all(line[0].isupper() for line in lines if line)
    assert len(lines) > 1
