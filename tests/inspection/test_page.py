"""The page of `jaxlm inspect` in a browser: it types, switches a head off, reads probabilities."""

import dataclasses
import json
import re

import numpy as np
import pytest

import jaxlm
from jaxlm.cli import main
from jaxlm.inspection import ablated, report, run, write_report
from jaxlm.inspection.figures import write_figures
from jaxlm.inspection.pages import written_target
from jaxlm.tokenizer import train_tokenizer
from tests.inspection.browser import CHROMIUM, Browser
from tests.inspection.models import tiny_loaded

TEXT = "abcab"
in_a_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no browser"),
]
DRAWN = "for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);"
TYPE = """$("text").value = TEXT; $("text").dispatchEvent(new Event("input"));""" + DRAWN
BARS = """return [...document.querySelectorAll("#bars tr")].map((row) =>
  [row.children[0].textContent, row.children[2].textContent]);"""


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def probabilities(loaded, text, **edits):
    logits = np.asarray(run(loaded, text, **edits)[0][0, -1], np.float64)
    chances = np.exp(logits - logits.max())
    return chances / chances.sum()


@pytest.fixture(scope="module")
def masked():
    """A tiny BERT whose vocabulary has the special tokens."""
    tokenizer = train_tokenizer(
        "wordpiece",
        ["the cat sat on a mat " * 9],
        60,
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    )
    sizes = {"vocab_size": tokenizer.vocab_size, "architecture": "encoder"}
    return dataclasses.replace(tiny_loaded(norm_position="post", **sizes), tokenizer=tokenizer)


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


def test_texts_that_the_page_cannot_follow_are_told(masked):
    with pytest.raises(jaxlm.JaxlmError, match="13 tokens, but the model takes 12"):
        report(tiny_loaded(), "abcabcabcabca")
    with pytest.raises(jaxlm.JaxlmError, match=r"write \[MASK\] in the text"):
        report(masked, "the cat")
    answers = tiny_loaded(head="question_answering", architecture="encoder")
    with pytest.raises(jaxlm.JaxlmError, match="QuestionAnswerer"):
        report(answers, TEXT)


def translator():
    """A tiny encoder-decoder whose vocabulary has the tokens around a text."""
    letters = "abcdefghijklmnop"
    tokenizer = train_tokenizer("char", [letters], specials=["<pad>", "</s>", "<s>"])
    sizes = {"vocab_size": tokenizer.vocab_size, "max_seq_len": 16, "decoder_start_id": 2}
    loaded = tiny_loaded("rotary", architecture="encoder_decoder", **sizes)
    return dataclasses.replace(loaded, tokenizer=tokenizer)


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
    stems = {"embedding", "attention_1", "attention_2", "lens", "probabilities"}
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


class TestInABrowser:
    pytestmark = in_a_browser

    def test_it_types_and_switches_a_head_off(self, tmp_path):
        loaded = tiny_loaded()
        write_report(loaded, TEXT, tmp_path / "page.html")
        with Browser(tmp_path / "page.html", tmp_path / "profile") as browser:
            assert browser.run("return state.difference") < 1e-3

            def agrees(chances):
                for name, share in browser.run(BARS):
                    expected = chances[loaded.tokenizer.encode(name)[0]]
                    assert float(share.rstrip("%")) / 100 == pytest.approx(expected, abs=2e-3)

            agrees(probabilities(loaded, TEXT))
            browser.run(TYPE.replace("TEXT", "'cabbage'"))
            agrees(probabilities(loaded, "cabbage"))
            browser.run("""document.querySelectorAll(".switch")[2].click();""")
            edit = ablated(loaded, "heads", 0, [2])
            agrees(probabilities(loaded, "cabbage", edit=edit))
            browser.run("""$("temperature").value = 0;
              $("temperature").dispatchEvent(new Event("input"));""")
            assert browser.run(BARS)[0][1] == "100%"
            browser.run("""$("greedy").click();""")
            assert len(browser.run("""return $("text").value""")) == 8
            browser.run(TYPE.replace("TEXT", "'ab?'"))
            assert "?" in browser.run("""return $("problem").textContent""")
            assert [
                url for url in browser.requests if not url.startswith(("file:", "blob:", "data:"))
            ] == []

    def test_it_speaks_two_languages_and_fits_a_phone(self, tmp_path):
        write_report(tiny_loaded(), TEXT, tmp_path / "page.html")
        with Browser(tmp_path / "page.html", tmp_path / "profile", width=400) as browser:
            overflow = "return document.documentElement.scrollWidth - innerWidth"
            assert browser.run(overflow) <= 0
            browser.run("""$("language").click()""")
            assert "词元" in browser.run("return document.body.innerText")
            assert browser.run(overflow) <= 0
            assert len(browser.picture()) > 10_000

    def test_a_masked_token_and_a_label_are_followed_too(self, tmp_path, masked):
        labels = {"head": "sequence_classification", "labels": ("good", "bad")}
        for name, loaded, text in (
            ("mask", masked, "the [MASK] sat"),
            ("label", tiny_loaded(architecture="encoder", **labels), TEXT),
        ):
            write_report(loaded, text, tmp_path / f"{name}.html")
            with Browser(tmp_path / f"{name}.html", tmp_path / f"profile_{name}") as browser:
                assert browser.run("return state.difference") < 1e-3
                assert browser.run("return state.encoder !== undefined")
                assert len(browser.run(BARS)) == (12 if name == "mask" else 2)

    def test_both_sides_of_an_encoder_decoder_are_followed(self, tmp_path):
        loaded = translator()
        write_report(loaded, "cabbage", tmp_path / "page.html")
        with Browser(tmp_path / "page.html", tmp_path / "profile") as browser:
            assert browser.run("return state.difference") < 1e-3
            assert browser.run("return state.encoder !== undefined")
            tabs = browser.run("""return document.querySelectorAll(".tabs button").length""")
            assert tabs == 2 + 2 * 2
            before = browser.run(BARS)
            browser.run("""document.querySelectorAll(".switch")[0].click();""")
            assert browser.run(BARS) != before
            browser.run(TYPE.replace("TEXT", "'bead'"))
            target = written_target(loaded, loaded.tokenizer.encode_sources(["bead"])[0])
            assert browser.run("return state.ids")[: len(target)] == target

    def test_what_jaxlm_recorded_is_shown(self, tmp_path, monkeypatch):
        monkeypatch.setattr("jaxlm.inspection.pages.MOST_PARAMS", 100)
        loaded = tiny_loaded()
        write_report(loaded, TEXT, tmp_path / "page.html")
        with Browser(tmp_path / "page.html", tmp_path / "profile") as browser:
            name, share = browser.run(BARS)[0]
            chances = probabilities(loaded, TEXT)
            assert name == loaded.tokenizer.decode([int(chances.argmax())])
            assert float(share.rstrip("%")) / 100 == pytest.approx(chances.max(), abs=2e-3)
            assert browser.run("""return document.querySelectorAll(".switch").length""") == 0
