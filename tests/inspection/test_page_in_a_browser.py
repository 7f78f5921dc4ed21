"""The page of `jaxlm inspect` in a browser: it types, switches a head off, reads probabilities."""

import dataclasses

import numpy as np
import pytest

from jaxlm.inspection import ablated, write_report
from jaxlm.inspection.pages import written_target
from jaxlm.tokenizer import train_tokenizer
from tests.inspection.browser import CHROMIUM, Browser
from tests.inspection.models import masked_bert, probabilities, tiny_loaded, translator

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no browser")]
TEXT = "abcab"
DRAWN = "for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);"
TYPE = """$("text").value = TEXT; $("text").dispatchEvent(new Event("input"));""" + DRAWN
BARS = """return [...document.querySelectorAll("#bars tr")].map((row) =>
  [row.children[0].textContent, row.children[2].textContent]);"""
CHIP = """document.querySelectorAll("button.chip")[N].click();"""
DELETE = """document.querySelectorAll("button.chip")[N]
  .dispatchEvent(new KeyboardEvent("keydown", { key: "Delete" }));"""
SHOWN = """return document.body.innerText;"""


def test_it_types_and_switches_a_head_off(tmp_path):
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


def test_it_speaks_two_languages_and_fits_a_phone(tmp_path):
    write_report(tiny_loaded(), TEXT, tmp_path / "page.html")
    with Browser(tmp_path / "page.html", tmp_path / "profile", width=400) as browser:
        overflow = "return document.documentElement.scrollWidth - innerWidth"
        assert browser.run(overflow) <= 0
        browser.run("""$("language").click()""")
        assert "词元" in browser.run("return document.body.innerText")
        assert browser.run(overflow) <= 0
        assert len(browser.picture()) > 10_000


def test_a_masked_token_and_a_label_are_followed_too(tmp_path):
    labels = {"head": "sequence_classification", "labels": ("good", "bad")}
    for name, loaded, text in (
        ("mask", masked_bert(), "the [MASK] sat"),
        ("label", tiny_loaded(architecture="encoder", **labels), TEXT),
    ):
        write_report(loaded, text, tmp_path / f"{name}.html")
        with Browser(tmp_path / f"{name}.html", tmp_path / f"profile_{name}") as browser:
            assert browser.run("return state.difference") < 1e-3
            assert browser.run("return state.encoder !== undefined")
            assert len(browser.run(BARS)) == (12 if name == "mask" else 2)


def test_both_sides_of_an_encoder_decoder_are_followed(tmp_path):
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


def test_what_jaxlm_recorded_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxlm.inspection.pages.MOST_PARAMS", 100)
    loaded = tiny_loaded()
    write_report(loaded, TEXT, tmp_path / "page.html")
    with Browser(tmp_path / "page.html", tmp_path / "profile") as browser:
        name, share = browser.run(BARS)[0]
        chances = probabilities(loaded, TEXT)
        assert name == loaded.tokenizer.decode([int(chances.argmax())])
        assert float(share.rstrip("%")) / 100 == pytest.approx(chances.max(), abs=2e-3)
        assert browser.run("""return document.querySelectorAll(".switch").length""") == 0


@pytest.fixture
def opened(tmp_path):
    """Opens the page of a model and a text; the browsers end with the test."""
    browsers = []

    def open_page(loaded, text, **options):
        number = len(browsers)
        write_report(loaded, text, tmp_path / f"{number}.html", **options)
        browser = Browser(tmp_path / f"{number}.html", tmp_path / f"profile {number}")
        browsers.append(browser)
        return browser.__enter__()

    yield open_page
    for browser in browsers:
        browser.__exit__()


def test_a_chosen_token_goes_behind_the_one_it_is_read_from(opened):
    loaded = tiny_loaded()
    browser = opened(loaded, "abcabc")
    browser.run(CHIP.replace("N", "1"))
    best = int(probabilities(loaded, "ab").argmax())
    assert "what stood there goes" in browser.run(SHOWN)
    browser.run("""$("greedy").click();""")
    assert browser.run("return state.ids") == [*loaded.tokenizer.encode("ab"), best]
    assert browser.run("return state.position") == 2


def test_masks_are_filled_one_after_the_other_and_nothing_else_is(opened):
    loaded = masked_bert()
    text = "the [MASK] sat on a [MASK]"
    browser = opened(loaded, text)
    ids = browser.run("return state.ids")
    first, second = (i for i, token in enumerate(ids) if token == loaded.tokenizer.mask_id)
    best = int(probabilities(loaded, text, first).argmax())
    browser.run("""$("greedy").click();""")
    assert browser.run("return [state.ids[state.position], state.position]") == [
        loaded.tokenizer.mask_id,
        second,
    ]
    assert browser.run("return state.ids") == [*ids[:first], best, *ids[first + 1 :]]
    word = loaded.tokenizer.backend.id_to_token(best).removeprefix("##")
    assert browser.run("""return $("text").value""") == f"the {word} sat on a [MASK]"
    browser.run(CHIP.replace("N", "0"))  # [CLS], which nothing may fill
    assert browser.run("""return $("greedy").disabled""")
    browser.run(DELETE.replace("N", "0"))
    assert browser.run("return state.ids.length") == len(ids)


def test_an_encoder_decoder_keeps_its_start_and_stops_at_its_end(opened):
    loaded = translator()
    browser = opened(loaded, "abc")
    browser.run(DELETE.replace("N", "0"))
    assert browser.run("return state.ids[0]") == 2
    browser.run(CHIP.replace("N", "1") + """put(DATA.end);""")
    assert browser.run("""return [state.ids.at(-1), $("greedy").disabled]""") == [
        loaded.tokenizer.eos_id,
        True,
    ]
    assert "is the end" in browser.run(SHOWN)


def test_what_is_wrong_is_told_until_it_is_right_again(opened):
    hidden = """return $("problem").hidden"""
    browser = opened(tiny_loaded(), "abc")
    browser.run(TYPE.replace("TEXT", "'ab?'"))
    assert not browser.run(hidden)
    browser.run("""$("greedy").click();""")
    assert browser.run(hidden)
    browser = opened(translator(), "abc")
    browser.run(TYPE.replace("TEXT", "''"))
    assert not browser.run(hidden)  # though the model itself could read an end without a text
    browser = opened(masked_bert(), "the [MASK] sat")
    assert browser.run("""return $("notice").hidden""")
    browser.run(TYPE.replace("TEXT", "'the [MASK] 好'"))
    assert "[UNK]" in browser.run("""return $("notice").textContent""")


def test_a_token_of_a_classifier_is_followed_into_the_blocks(opened):
    labels = {"head": "sequence_classification", "labels": ("good", "bad")}
    browser = opened(tiny_loaded(architecture="encoder", **labels), "abcde")
    browser.run(CHIP.replace("N", "3") + DRAWN)
    assert browser.run("""return $("looks").textContent""").startswith("“d” looks at")


def test_recorded_probabilities_are_those_of_the_chosen_token_at_any_temperature(
    opened, monkeypatch
):
    monkeypatch.setattr("jaxlm.inspection.pages.MOST_PARAMS", 100)
    monkeypatch.setattr("jaxlm.inspection.payload.NAMED", 5)
    loaded = tiny_loaded()
    browser = opened(loaded, TEXT)
    browser.run(CHIP.replace("N", "1"))
    for heat in (1.0, 1.5):
        browser.run(f"""$("temperature").value = {heat};
          $("temperature").dispatchEvent(new Event("input"));""")
        logits = np.log(probabilities(loaded, TEXT, 1)) / heat
        chances = np.exp(logits) / np.exp(logits).sum()
        found = browser.run(BARS)
        assert len(found) == 5
        for name, share in found:
            expected = chances[loaded.tokenizer.encode(name)[0]]
            assert float(share.rstrip("%")) / 100 == pytest.approx(expected, abs=2e-3)


def test_the_chinese_page_is_chinese_for_those_who_hear_it_too(opened):
    browser = opened(tiny_loaded(), TEXT, language="zh")
    labels = browser.run("""return [...document.querySelectorAll("[aria-label]")]
      .map((element) => element.getAttribute("aria-label"));""")
    assert len(labels) > 20
    english = [label for label in labels if not any("\u4e00" <= c <= "\u9fff" for c in label)]
    assert english == []


def test_without_temperature_the_candidates_keep_their_order(opened):
    loaded = tiny_loaded()
    browser = opened(loaded, TEXT)
    names = [name for name, _ in browser.run(BARS)]
    browser.run(
        """$("temperature").value = 0; $("temperature").dispatchEvent(new Event("input"));"""
    )
    assert [name for name, _ in browser.run(BARS)] == names


def test_the_last_token_stays_and_the_chosen_one_stays_chosen(opened):
    browser = opened(tiny_loaded(), "abc")
    browser.run(DELETE.replace("N", "0"))
    assert browser.run("return [state.ids.length, state.position]") == [2, 1]
    browser.run(DELETE.replace("N", "0") + DELETE.replace("N", "0"))
    assert browser.run("return state.ids.length") == 1
    assert browser.run("""return $("problem").hidden""")


def test_heads_that_are_off_are_counted_and_switched_on_together(opened):
    browser = opened(tiny_loaded(), TEXT)
    before = browser.run(BARS)
    browser.run("""document.querySelectorAll(".switch")[2].click();""")
    browser.run("""document.querySelectorAll(".tabs button")[1].click();""")
    assert "1" in browser.run("""return $("all-on").textContent""")
    browser.run("""$("all-on").click();""")
    assert browser.run(BARS) == before


def test_what_the_box_cannot_show_is_told(opened):
    tokenizer = train_tokenizer("bpe", ["abc "], 260)
    loaded = dataclasses.replace(tiny_loaded(vocab_size=tokenizer.vocab_size), tokenizer=tokenizer)
    browser = opened(loaded, "a天b")
    assert browser.run("""return $("notice").hidden""")
    browser.run(DELETE.replace("N", "2"))  # a byte of the character
    assert not browser.run("""return $("notice").hidden""")
