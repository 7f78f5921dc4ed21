"""A Hugging Face directory to read, change and damage."""

import json

import pytest
from safetensors.numpy import save_file

from jaxlm.tokenizer import train_tokenizer
from tests.fixtures.reference import recorded

TEXT = "今天天气真好，我们去公园玩。The quick brown fox. "


@pytest.fixture(scope="module")
def gpt2():
    return recorded("gpt2")


@pytest.fixture
def theirs(gpt2, tmp_path):
    """A directory as the reference would write it, with a tokenizer."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    tensors = {k: v for k, v in gpt2.weights.items() if k != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(gpt2.theirs))
    train_tokenizer("char", [TEXT]).save(folder)
    return folder
