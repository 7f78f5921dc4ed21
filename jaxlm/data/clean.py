"""What every text goes through before anything counts its characters."""

import re
import unicodedata
from typing import Literal

# Controls other than tab and newline, byte-order marks, and halves of surrogate pairs, which JSON
# can spell but UTF-8 cannot.
DROPPED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")


def clean(text: str, normalize: Literal["none", "NFC", "NFKC"] = "none") -> str:
    """End lines with a newline, drop what is not text, and bring it to a Unicode normal form."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = DROPPED.sub("", text)
    return text if normalize == "none" else unicodedata.normalize(normalize, text)
