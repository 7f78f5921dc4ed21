"""The page of `jaxlm inspect`: what it carries, and which texts it refuses."""

import json
import re

import pytest

import jaxlm
from jaxlm.cli import main
from jaxlm.inspection import report
from jaxlm.inspection.figures import write_figures
from jaxlm.inspection.pages import unknown_token
from jaxlm.inspection.predictions import token_texts
from jaxlm.tokenizer import train_tokenizer
from tests.inspection.models import masked_bert, probabilities, tiny_loaded, translator

TEXT = "abcab"


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_carries_what_it_needs_and_asks_the_network_for_nothing():
    page = report(tiny_loaded(), TEXT, "tiny </script> model")
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert "default-src 'none'" in page
    assert len(re.findall("</script>", page)) == 6  # data, weights, and four of code
    data = data_of(page)
    assert data["title"] == "tiny </script> model"
    assert data["kind"] == "next"
    assert data["language"] == "en"
    assert "/*" not in page.split('id="weights">')[1].split("</script>")[0]


def test_texts_that_the_page_cannot_follow_are_told():
    with pytest.raises(jaxlm.JaxlmError, match="13 tokens, but the model takes 12"):
        report(tiny_loaded(), "abcabcabcabca")
    with pytest.raises(jaxlm.JaxlmError, match=r"write \[MASK\] in the text"):
        report(masked_bert(), "the cat")
    answers = tiny_loaded(head="question_answering", architecture="encoder")
    with pytest.raises(jaxlm.JaxlmError, match="QuestionAnswerer"):
        report(answers, TEXT)


@pytest.mark.parametrize("loaded", [tiny_loaded(), masked_bert(), translator()])
def test_an_empty_text_is_refused_by_every_kind_of_model(loaded):
    with pytest.raises(jaxlm.JaxlmError, match="the text is empty"):
        report(loaded, "")


def test_what_the_vocabulary_lacks_is_told():
    assert unknown_token(masked_bert(), "the [MASK] 好") == "[UNK]"
    assert unknown_token(masked_bert(), "the [MASK] sat") is None
    assert unknown_token(masked_bert(), "the [UNK] [MASK]") is None  # which the user wrote


def test_bytes_that_are_no_whole_character_show_as_numbers():
    tokenizer = train_tokenizer("bpe", ["today "], 260)
    assert token_texts(tokenizer, tokenizer.encode("to 天")) == [
        *["t", "o", " "],
        *["<E5>", "<A4>", "<A9>"],
    ]


def test_an_id_that_is_no_token_shows_as_its_number():
    tokenizer = train_tokenizer("char", ["abc"])
    assert token_texts(tokenizer, [0, 2, 3]) == ["a", "c", "#3"]


def test_an_encoder_decoder_begins_with_what_it_writes(tmp_path):
    loaded = translator()
    data = data_of(report(loaded, "abc"))
    assert data["source"] == loaded.tokenizer.encode_sources(["abc"])[0]
    assert data["ids"][0] == 2
    assert data["end"] not in data["ids"]
    names = write_figures(loaded, "abc", tmp_path / "figures")
    assert {"encoder_attention_1", "decoder_cross_attention_2", "probabilities"} <= {*names}


def test_a_large_model_stays_at_home(monkeypatch):
    monkeypatch.setattr("jaxlm.inspection.pages.MOST_PARAMS", 100)
    loaded = tiny_loaded()
    data = data_of(report(loaded, TEXT))
    assert "tensors" not in data
    lens = data["recorded"]["lens"]
    assert (len(lens), len(lens[0])) == (3, 5)
    best = int(probabilities(loaded, TEXT).argmax())
    assert lens[-1][-1][0][0] == best
    assert data["names"][str(best)] == loaded.tokenizer.decode([best])


def test_the_verb_writes_a_page_and_figures_and_replaces_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jaxlm.loading.load", lambda source: tiny_loaded())
    page, figures = tmp_path / "page.html", tmp_path / "figures"
    words = ["inspect", "runs/tiny", "--text", TEXT, "--output", str(page)]
    assert main([*words, "--figures", str(figures)]) == 0
    assert main(words) == 0  # its own page is replaced
    names = {path.name for path in figures.iterdir()}
    vectors = {"token_vectors", "position_vectors", "embedding"}
    blocks = {f"{part}_{i}" for part in ("attention", "feed_forward") for i in (1, 2)}
    stems = {"tokens", "lens", "probabilities"} | vectors | blocks
    assert names == {f"{stem}{kind}" for stem in stems for kind in (".png", ".json")}
    found = json.loads((figures / "probabilities.json").read_text(encoding="utf-8"))
    best = probabilities(tiny_loaded(), TEXT).max()
    assert found["likeliest"][0]["probability"] == pytest.approx(best, abs=1e-5)
    assert main([*words, "--figures", str(figures)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main([*words, "--figures", str(figures), "--overwrite"]) == 0
    page.write_text("mine")
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert page.read_text() == "mine"
    assert main([*words[:-1], str(tmp_path / "page.txt")]) == 2
