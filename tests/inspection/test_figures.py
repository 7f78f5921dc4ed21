"""Figures of `jaxlm inspect --figures`: which there are, and what is written beside the picture."""

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
from matplotlib import font_manager

from jaxlm.inspection import run
from jaxlm.inspection.drawing import (
    attention_of_heads,
    bars,
    label_of,
    largest_of_neighbours,
    rows_of_numbers,
    token_cells,
)
from jaxlm.inspection.figures import pictures, write_figures
from jaxlm.inspection.fonts import fonts_for
from jaxlm.tokenizer import train_tokenizer
from tests.inspection.models import masked_bert, tiny_loaded, translator

BLOCKS = {"attention_1", "attention_2", "feed_forward_1", "feed_forward_2"}
ENDS = {"lens", "probabilities"}
LABELS = {"head": "sequence_classification", "labels": ("good", "bad")}


def words_of(figure):
    """Every word of a figure by what it is: the heading, titles, and names of axes and bars."""
    figure.draw_without_rendering()
    axes = [axes for axes in figure.axes if axes.axison]
    return {
        "heading": figure.get_suptitle(),
        "titles": [x.get_title() for x in axes],
        "axes": [x.get_xlabel() for x in axes] + [x.get_ylabel() for x in axes],
        "x": [label.get_text() for x in axes for label in x.get_xticklabels()],
        "y": [label.get_text() for x in axes for label in x.get_yticklabels()],
        "figure": [figure.get_supxlabel(), figure.get_supylabel()],
    }


def drawn(loaded, text):
    return {picture.name: picture for picture in pictures(loaded, text)}


def test_a_decoder_has_figures_of_tokens_vectors_blocks_and_predictions():
    found = drawn(tiny_loaded(), "abcab")
    vectors = {"token_vectors", "position_vectors", "embedding"}
    assert found.keys() == {"tokens", *vectors, *BLOCKS, *ENDS}
    parts = [np.array(found[name].numbers["values"]) for name in vectors]
    token, position, entering = (
        np.array(found[name].numbers["values"])
        for name in ("token_vectors", "position_vectors", "embedding")
    )
    assert {x.shape for x in parts} == {(5, 16)}
    np.testing.assert_allclose(token + position, entering, atol=2e-5)
    hidden = run(tiny_loaded(), "abcab", "layers_1/feed_forward/hidden")[1]
    np.testing.assert_allclose(
        found["feed_forward_2"].numbers["values"], next(iter(hidden.values()))[0], atol=1e-5
    )
    assert found["tokens"].numbers == {"tokens": list("abcab"), "ids": [0, 1, 2, 0, 1]}
    assert "position_vectors" not in drawn(tiny_loaded("rotary"), "abc")


def test_a_bert_and_a_classifier_have_them_too():
    found = drawn(masked_bert(), "the [MASK] sat")
    assert {"tokens", "token_vectors", "position_vectors", "embedding", *BLOCKS, *ENDS} == {*found}
    assert found["lens"].numbers["position"] == 2
    assert "at the mask, position 2" in words_of(found["lens"].draw())["heading"]
    found = drawn(tiny_loaded(architecture="encoder", **LABELS), "abc")
    assert {"tokens", "embedding", *BLOCKS, "probabilities"} <= {*found}
    assert "lens" not in found


def test_an_encoder_decoder_has_those_of_both_sides():
    found = drawn(translator(), "abc")
    sides = {
        f"{part}_{kind}"
        for part in ("encoder", "decoder")
        for kind in ("tokens", "embedding", *BLOCKS)
    }
    crossing = {"decoder_cross_attention_1", "decoder_cross_attention_2"}
    assert found.keys() == {*sides, *crossing, *ENDS}
    assert found["encoder_tokens"].numbers["tokens"] == ["a", "b", "c", "</s>"]
    assert found["decoder_cross_attention_1"].numbers["looked_at"] == ["a", "b", "c", "</s>"]
    lens, best = found["lens"].numbers["after"], found["probabilities"].numbers["likeliest"]
    assert len(lens) == 3
    assert lens[-1][0]["probability"] == pytest.approx(best[0]["probability"], abs=1e-5)


def test_every_figure_says_what_it_shows_and_names_its_axes():
    for loaded, text in ((tiny_loaded(), "abcab"), (translator(), "abc")):
        for name, picture in drawn(loaded, text).items():
            words = words_of(picture.draw())
            assert words["heading"], name
            if "attention" in name:
                heads = [f"Head {n}" for n in (1, 2, 3, 4)]
                assert [title for title in words["titles"] if title] == heads
                assert words["figure"] == ["token looked at (key)", "token that looks (query)"]
                assert "attention weight" in words["axes"]
            elif "tokens" not in name:
                assert any(words["axes"]), name
            if {"vectors", "embedding", "feed"} & {*name.split("_")}:
                assert "value" in words["axes"]  # of the colour bar


def test_the_rows_of_the_lens_are_named_by_their_places():
    words = words_of(drawn(tiny_loaded(), "abcab")["lens"].draw())
    assert [name.partition(": ")[0] for name in words["y"]] == ["embedding", "Block 1", "Block 2"]


@pytest.mark.parametrize(("length", "step"), [(64, 1), (150, 3)])
def test_tokens_are_named_each_up_to_64_and_beyond_by_position(length, step):
    tokens = ["a" if i % 2 else "b" for i in range(length)]
    figure = attention_of_heads(np.ones((1, length, length)), tokens, tokens, "heading")
    places = range(0, length, step)
    named = [tokens[i] if step == 1 else f"{i} {tokens[i]}" for i in places]
    words = words_of(figure)
    assert words["x"] == named
    assert [x for x in words["y"] if x in named] == named
    rows = words_of(rows_of_numbers(np.ones((length, 3)), tokens, "heading", "dimension"))
    assert [x for x in rows["y"] if x in named] == named


def test_no_two_labels_of_an_axis_overlap():
    tokens = ["abcdefgh" if i % 3 else "d" for i in range(64)]
    figure = attention_of_heads(np.ones((4, 64, 64)), tokens, tokens, "heading")
    figure.draw_without_rendering()
    for number, side in ((0, "y"), (2, "x")):
        axis = getattr(figure.axes[number], f"{side}axis")
        boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
        spans = sorted(tuple(getattr(box, f"interval{side}")) for box in boxes)
        assert len(spans) == 64
        assert all(one[1] <= other[0] + 1 for one, other in pairwise(spans))  # pixels


def test_what_cannot_be_seen_has_a_sign_and_dollars_are_no_formula():
    assert label_of(" a\tb\n") == "␣a⇥b⏎"
    assert label_of("x" * 40) == "x" * 15 + "…"
    figure = token_cells(["$a$", "$", "b"], [3, 4, 5], [False, True, False], "heading")
    figure.draw_without_rendering()
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert r"\$a\$" in texts
    assert "id 4" in texts
    assert bars(["$a$"], [0.5], "heading", "probability").axes[0].get_yticklabels()


def test_small_probabilities_are_not_called_zero():
    figure = bars(["a", "b"], [0.9996, 0.0004], "heading", "probability")
    assert [text.get_text() for text in figure.axes[0].texts] == ["100.0%", "<0.1%"]


def test_of_more_columns_than_pixels_the_largest_is_seen():
    values = np.zeros((2, 1000))
    values[0, 501], values[1, 7] = -3.0, 2.0
    found = largest_of_neighbours(values, 100)
    assert found.shape == (2, 100)
    assert (found[0, 50], found[1, 0], np.abs(found).sum()) == (-3.0, 2.0, 5.0)
    assert largest_of_neighbours(values, 1000) is values


def test_numbers_hold_tokens_whole_and_as_they_are():
    tokenizer = train_tokenizer("char", ["ab \n"])
    loaded = dataclasses.replace(tiny_loaded(vocab_size=19), tokenizer=tokenizer)
    assert drawn(loaded, "a b\n")["tokens"].numbers["tokens"] == ["a", " ", "b", "\n"]


def test_each_picture_has_its_numbers_beside_it(tmp_path):
    names = write_figures(tiny_loaded("rotary", num_layers=1), "abcab", tmp_path / "figures")
    for name in names:
        png, numbers = (tmp_path / "figures" / f"{name}.{kind}" for kind in ("png", "json"))
        assert png.read_bytes().startswith(b"\x89PNG")
        assert json.loads(numbers.read_text(encoding="utf-8"))
    written = tmp_path / "figures" / "attention_1.json"
    weights = np.array(json.loads(written.read_text(encoding="utf-8"))["weights"])
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-4)


def test_the_font_of_last_resort_has_no_chinese():
    known = font_manager.fontManager.ttflist
    with pytest.MonkeyPatch.context() as patch:
        last = [x for x in known if x.name.startswith(("DejaVu", "Last Resort"))]
        patch.setattr(font_manager.fontManager, "ttflist", last)
        patch.setattr(font_manager, "findSystemFonts", list)
        assert fonts_for("好") == ([], "好")
