"""`jaxlm export --verify`, as a user calls it."""

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
