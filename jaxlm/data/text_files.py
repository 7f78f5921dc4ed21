"""Files as lines or whole texts, cleaned, and a hash of what they hold."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from jaxlm.data.contents import DataError, decode_utf8, open_file, reading
from jaxlm.data.sources import HTML, find_files, kind_of

# Control characters other than tab and newline, byte-order marks, and lone surrogates, which JSON
# can hold but UTF-8 cannot.
DROPPED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")


def read_lines(file: Path) -> Iterator[str]:
    """Lines with their line ends, read one by one: a few rows of a large file cost little."""
    offset = 0
    with reading(file), open_file(file) as content:
        for line in content:
            yield decode_utf8(line, file, offset)
            offset += len(line)


def read_document(file: Path) -> str:
    """The text of a whole file; of a web page without its tags."""
    with reading(file), open_file(file) as content:
        text = decode_utf8(content.read(), file)
    return text_of_page(text, file) if kind_of(file) in HTML else text


def text_of_page(page: str, file: Path) -> str:
    try:
        import trafilatura  # pyright: ignore[reportMissingImports], an extra
        from lxml import etree, html  # pyright: ignore
    except ImportError:
        raise DataError(
            f'{file} is a web page, which needs the data extra: pip install "jaxlm[data]"'
        ) from None
    if text := trafilatura.extract(page):
        return text
    try:
        # The extractor gives nothing for a page of a few words.
        tree = html.document_fromstring(page.encode(), parser=html.HTMLParser(encoding="utf-8"))
    except (ValueError, etree.LxmlError):  # a page without any text
        return ""
    etree.strip_elements(tree, "script", "style", "head", with_tail=False)
    return tree.text_content().strip()


def read_each[T](
    files: Sequence[Path], read: Callable[[Path], Iterator[T]], skip: bool, remarks: list[str]
) -> Iterator[T]:
    """The contents of each file; with `skip` one that cannot be read is skipped with a remark.

    A .json file among others is skipped likewise, as it may hold anything.
    """
    for file in files:
        if not skip and (kind_of(file) != ".json" or len(files) == 1):
            yield from read(file)
            continue
        try:
            found = list(read(file))
        except DataError as error:
            remarks.append(f"skipped a file: {error}")
        else:
            yield from found


def clean(text: str, normalize: Literal["none", "NFC", "NFKC"] = "none") -> str:
    """Make line ends newlines, drop control characters, and apply a Unicode normal form."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = DROPPED.sub("", text)
    return text if normalize == "none" else unicodedata.normalize(normalize, text)


def fingerprint_source(source: str) -> str:
    """A hash of the contents; for a Hub data set only its name, as its contents are not local."""
    if source.startswith("hf:"):
        return source
    whole = hashlib.sha256()
    for file in find_files(source):
        with reading(file), file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        whole.update(f"{kind_of(file)} {digest}\n".encode())
    return whole.hexdigest()
