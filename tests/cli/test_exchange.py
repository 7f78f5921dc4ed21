"""`--verify` of `jaxlm export` and `jaxlm import`, as a user calls them."""

import dataclasses

import jax
import pytest
from safetensors.numpy import load_file, save_file

from jaxlm import loading
from jaxlm.cli import main
from tests.cli.verbs import refused, said

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_verified_export_says_how_far_its_logits_are_from_those_of_transformers(
    home, tmp_path, capsys, dtype
):
    words = ["export", home / "decoder", tmp_path / "out", "--verify"]
    words += ["--dtype", dtype] * bool(dtype)
    proof = said(capsys, *words, "--json")
    assert 0 <= float(proof["largest logits difference"]) < 1e-4
    assert main(["export", str(home / "decoder"), str(tmp_path / "again"), "--verify"]) == 0
    assert "largest logits difference" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["marian_apart", "bart", "t5_gated"])
def test_an_encoder_decoder_is_verified_in_both_directions(tmp_path, capsys, name):
    from scripts.make_seq2seq_fixtures import seq2seq_model

    seq2seq_model(name).save_pretrained(tmp_path / "theirs")
    proof = said(capsys, "import", tmp_path / "theirs", tmp_path / "run", "--verify", "--json")
    assert 0 < float(proof["largest logits difference"]) < 1e-4
    proof = said(capsys, "export", tmp_path / "run", tmp_path / "ours", "--verify", "--json")
    assert 0 < float(proof["largest logits difference"]) < 1e-4


def test_an_export_is_compared_with_its_source_as_a_smaller_type(
    home, tmp_path, capsys, monkeypatch
):
    write = loading.export

    def coarse(loaded, path, dtype=None):
        rough = jax.tree.map(lambda leaf: leaf.astype("float8_e4m3fn"), loaded.params)
        write(dataclasses.replace(loaded, params=rough), path, dtype)

    monkeypatch.setattr(loading, "export", coarse)
    words = ["export", home / "decoder", tmp_path / "out", "--dtype", "bfloat16", "--verify"]
    assert "is not the model in" in refused(capsys, *words)


def test_a_damaged_export_is_not_verified(home, tmp_path, capsys, monkeypatch):
    write = loading.export

    def damaged(loaded, path, dtype=None):
        write(loaded, path, dtype)
        tensors = load_file(path / "model.safetensors")
        tensors["transformer.ln_f.weight"][0] += 3
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(loading, "export", damaged)
    told = refused(capsys, "export", home / "decoder", tmp_path / "out", "--verify")
    assert f"{tmp_path / 'out'} is not the model in {home / 'decoder'}" in told


@pytest.mark.parametrize("verb", ["export", "import"])
def test_nothing_is_written_where_it_could_not_be_verified(
    home, tmp_path, capsys, monkeypatch, verb
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    told = refused(capsys, verb, home / "decoder", tmp_path / "out", "--verify")
    assert "needs torch and transformers" in told
    assert not (tmp_path / "out").exists()
