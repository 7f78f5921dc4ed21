from jaxlm.config import DataConfig
from jaxlm.data import clean, read_corpus


def test_shakespeare_comes_through_unchanged():
    config = DataConfig(source="sample:tinyshakespeare")
    text = read_corpus(config).documents[0]
    assert len(text) == 1_115_394
    assert clean(text, "NFKC") == text


def test_lines_end_with_a_newline_only():
    assert clean("明月几时有\r\n把酒问青天\r\r\n") == "明月几时有\n把酒问青天\n\n"


def test_what_is_not_text_is_dropped():
    assert clean("\ufeffa\x00b\x0bc\x7f\x85\ud83d\td\n") == "abc\td\n"


def test_the_normal_form_is_chosen():
    text = "ＡＢ１ e\u0301 ①"
    assert clean(text) == text
    assert clean(text, "NFC") == "ＡＢ１ é ①"
    assert clean(text, "NFKC") == "AB1 é 1"
