"""Own parts handed to `fit`: a whole task, an attention function, a model, an optimizer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlm
from jaxlm.config import JaxlmError, load_config
from jaxlm.models import CausalLM
from jaxlm.ops.attention import attention
from jaxlm.tasks import Task
from jaxlm.tasks.causal_lm import causal_lm
from jaxlm.tasks.task import mean_scores
from jaxlm.tokenizer import train_tokenizer
from jaxlm.training import fit
from jaxlm.training.trainer import Trainer
from tests.training.runs import assert_same_run, rows, tiny

SYMBOLS, LENGTH = "abcdefgh", 5


class CopyTask(Task):
    """Random symbols, a bar, and the same symbols again, of which the copy is learned."""

    architecture = "decoder"
    objective = staticmethod(causal_lm)
    best_by = "accuracy"

    def __init__(self, batch_size: int, seed: int = 0):
        self.tokenizer = train_tokenizer("char", [SYMBOLS + "|"])
        self.batch_size, self.seed = batch_size, seed
        self.step_tokens = batch_size * 2 * LENGTH
        self.fingerprint = f"copy {self.tokenizer.fingerprint} {seed}"
        self.description = f"copies of {LENGTH} symbols"

    def rows(self, key: list[int]) -> np.ndarray:
        first = np.random.default_rng(key).integers(len(SYMBOLS), size=(self.batch_size, LENGTH))
        bar = np.full((self.batch_size, 1), self.tokenizer.encode("|")[0])
        texts = np.array(self.tokenizer.encode(SYMBOLS))[first]
        return np.concatenate([texts, bar, texts], axis=1).astype(np.int32)

    def batch(self, key: list[int]) -> dict[str, np.ndarray]:
        rows = self.rows(key)
        weights = np.zeros((len(rows), 2 * LENGTH), np.float32)
        weights[:, LENGTH:] = 1
        return {"ids": rows[:, :-1], "targets": rows[:, 1:], "weights": weights}

    def train_batch(self, step):
        return self.batch([self.seed, 0, step])

    def evaluate(self, model, params):
        return mean_scores(causal_lm, model, params, [self.batch([self.seed, 1])])

    def samples(self, loaded, step):
        return [("abcde|", jaxlm.generate(loaded, ["abcde|"], LENGTH, temperature=0)[0])]

    def summary(self, best):
        return {"copied": self.samples(best, 0)[0][1]}


class BrokenTask(CopyTask):
    def train_batch(self, step):
        return {}["batch"]


def copying(folder, **sections):
    return tiny(folder, train={"steps": 12, "eval_every": 4, "checkpoint_every": 4}, **sections)


def test_an_own_task_trains_and_resumes_exactly(tmp_path, monkeypatch):
    def config(name):
        return copying(tmp_path, run={"dir": str(tmp_path / name)}, sample={"every": 6})

    loaded = fit(config("whole"), task=CopyTask(8))
    assert loaded.config.vocab_size == len(SYMBOLS) + 1
    vals = [row for row in rows(tmp_path / "whole") if row["split"] == "val"]
    assert [row["step"] for row in vals] == [4, 8, 12]
    assert rows(tmp_path / "whole", "samples.jsonl")[0]["prompt"] == "abcde|"

    evaluate = Trainer._evaluate

    def stop_at_8(self, step):
        if step == 8:
            self.saving.checkpoints.wait()
            raise KeyboardInterrupt
        return evaluate(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_evaluate", stop_at_8)
        with pytest.raises(KeyboardInterrupt):
            fit(config("cut"), task=CopyTask(8))
    with pytest.raises(JaxlmError, match=r"run\.own says that fit was given task CopyTask, but"):
        fit(load_config(tmp_path / "cut" / "config.yaml", ["--run.dir", str(tmp_path / "other")]))
    fit(config("cut"), task=CopyTask(8))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_an_own_task_is_learned(tmp_path):
    model = {"d_model": 64, "num_layers": 2, "num_heads": 4, "dropout": 0.0, "positions": "rotary"}
    config = copying(tmp_path, model=model, sample={"every": 0}, optim={"name": "muon"})
    config = config.replace({"train": {"steps": 90, "eval_every": 90}})
    fit(config, task=CopyTask(32))
    (val,) = (row for row in rows(tmp_path / "run") if row["split"] == "val")
    assert val["accuracy"] > 0.99


def window_attention(query, key, value, mask=None, **options):
    """Attention to the last four tokens only."""
    T, S = query.shape[-2], key.shape[-2]
    near = jnp.arange(S) > jnp.arange(T)[:, None] - 4
    return attention(query, key, value, near[None] if mask is None else mask & near, **options)


def test_an_own_attention_function_trains(tmp_path):
    loaded = fit(tiny(tmp_path), model=lambda c: CausalLM(c, attention=window_attention))
    ids = jnp.arange(12)[None] % loaded.config.vocab_size
    logits = loaded.model.apply({"params": loaded.params}, ids)
    other = loaded.model.apply({"params": loaded.params}, ids.at[0, 0].set(7))
    np.testing.assert_array_equal(logits[0, 5:], other[0, 5:])  # out of sight
    assert (logits[0, 0] != other[0, 0]).any()


class Bigram(nn.Module):
    """The next token's logits, looked up by the last one alone."""

    vocab_size: int

    @nn.compact
    def __call__(self, ids, **options):
        return nn.Embed(self.vocab_size, self.vocab_size)(ids)


def test_an_own_model_trains_and_loads(tmp_path):
    def make(config):
        return Bigram(config.vocab_size)

    config = tiny(tmp_path, sample={"every": 0})
    loaded = fit(config, model=make)
    again = jaxlm.load(tmp_path / "run", model=make)
    np.testing.assert_array_equal(
        again.params["Embed_0"]["embedding"], loaded.params["Embed_0"]["embedding"]
    )
    assert rows(tmp_path / "run")[-1]["loss"] < rows(tmp_path / "run")[0]["loss"]


def test_an_own_optimizer_trains(tmp_path):
    fit(tiny(tmp_path), optimizer=optax.chain(optax.clip(1.0), optax.sgd(0.5)))
    losses = [row["loss"] for row in rows(tmp_path / "run") if row["split"] == "train"]
    assert losses[-1] < losses[0]


def lacks_a_key(model, params, batch, key):
    return causal_lm(model, params, {"ids": batch["tokens"]}, key)


def needs_a_key(model, params, batch, key):
    return causal_lm(model, params, batch, key) | {"noise": jax.random.normal(key)}


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (
            {"objective": lacks_a_key},
            r"the own objective lacks_a_key fails with KeyError at test_own_parts\.py line \d+: "
            r"'tokens'; batch holds ids \[4, 16\], .*targets \[4, 16\]",
        ),
        ({"objective": needs_a_key}, "needs_a_key fails with .*, and key is None in evaluation"),
        ({"objective": lambda *_: 1.0}, "returns a mapping with loss and count, got float"),
        ({"objective": lambda *_: {"loss": 1.0}}, r"with loss and count, got \['loss'\]"),
        ({"task": BrokenTask(8)}, "the own task BrokenTask fails with KeyError"),
    ],
)
def test_a_mistake_in_an_own_part_is_told_with_what_a_batch_holds(tmp_path, parts, told):
    with pytest.raises(JaxlmError, match=told) as error:
        fit(tiny(tmp_path, train={"steps": 1, "eval_every": 1}, sample={"every": 0}), **parts)
    assert "\n" not in str(error.value)
