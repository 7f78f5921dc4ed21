"""Which characters are Chinese, and which take no spaces between them."""

import re

# Chinese, Japanese and Korean characters, each as the inside of a regular expression's [...].
# Ideographs, with the compatibility block and everything from U+20000 on.
IDEOGRAPHS = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Radicals, kana, CJK punctuation and full-width forms as well.
CJK = f"\u2e80-\u33ff{IDEOGRAPHS}\uff00-\uffef"
# What has no spaces around it in Chinese text: also quotation marks and the ellipsis.
UNSPACED = f"{CJK}\u2018-\u201d\u2026"
# What takes two columns in a terminal: also hangul and vertical punctuation.
WIDE = f"{CJK}\uac00-\ud7af\ufe30-\ufe4f"
CHINESE_GAP = re.compile(f"(?<=[{UNSPACED}]) (?=[{UNSPACED}])")
