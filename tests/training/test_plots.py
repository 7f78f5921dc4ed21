import warnings

import numpy as np
import pytest
from matplotlib import font_manager

from jaxlm.inspection.fonts import fonts_for
from jaxlm.training import plots

COUNTS = np.array([[3, 1], [0, 2]])


def font_with(text, file):
    """A font that draws each character of a text as a square."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 900), (900, 900), (900, 0)):
        pen.lineTo(point)
    pen.closePath()
    square, names = pen.glyph(), [".notdef", *(f"u{ord(c):x}" for c in text)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): f"u{ord(c):x}" for c in text})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(file)


@pytest.fixture
def only_own(monkeypatch):
    """A system without fonts but Matplotlib's own."""
    own = [e for e in font_manager.fontManager.ttflist if e.name.startswith("DejaVu")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)


def test_chinese_labels_are_drawn_by_a_font_that_has_them(tmp_path, monkeypatch, only_own):
    font_with("好差", tmp_path / "squares.ttf")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(tmp_path / "squares.ttf")])
    assert fonts_for("好 good") == (["Squares"], "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plots.plot_confusion(tmp_path / "a.png", COUNTS, ["好", "差"]) == ""
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_font_is_one_sentence_and_no_warning(tmp_path, only_own):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = plots.plot_confusion(tmp_path / "a.png", COUNTS, ["好", "差"])
    assert told.startswith("no font here has '好差', drawn as boxes")
    assert "fonts-noto-cjk" in told


def test_latin_labels_need_no_other_font(tmp_path, monkeypatch):
    monkeypatch.setattr(font_manager, "findSystemFonts", None)
    assert plots.plot_confusion(tmp_path / "a.png", COUNTS, ["a$b", "$c"]) == ""


def test_hundreds_of_labels_are_drawn_too(tmp_path):
    counts = np.eye(300, dtype=int)
    assert plots.plot_confusion(tmp_path / "a.png", counts, [f"{i}" for i in range(300)]) == ""
