"""Files by path, folder, glob or sample name, and their contents as decoded lines."""

import difflib
import glob
import gzip
import hashlib
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxlm.config import JaxlmError

SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")
COMPRESSED = {".gz": gzip.open, ".xz": lzma.open}
SAMPLES = {
    "chat_en": "chat_en.jsonl",
    "chat_zh": "chat_zh.jsonl",
    "mini_zh": "mini_zh.txt",
    "reviews_en": "reviews_en.tsv",
    "reviews_zh": "reviews_zh.tsv.xz",
    "songci": "songci.jsonl.xz",
    "tinyshakespeare": "tinyshakespeare.txt",
}


class DataError(JaxlmError):
    """Text that cannot be found, read, split or cut into windows."""


def find_files(source: str) -> list[Path]:
    """The files of a sample, path, folder or glob, sorted by path; several are joined by " + "."""
    return [file for part in source.split(" + ") for file in find_part(part.strip())]


def find_part(source: str) -> list[Path]:
    if source.startswith("sample:"):
        name = source.removeprefix("sample:")
        if name not in SAMPLES:
            near = difflib.get_close_matches(name, SAMPLES, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SAMPLES)}"
            raise DataError(f"no bundled sample is called {name!r}: {hint}")
        return [Path(__file__).parent / "samples" / SAMPLES[name]]
    path = Path(source).expanduser()
    if path.is_dir():
        found = [
            file
            for file in path.rglob("*")
            if kind_of(file) in SUFFIXES
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
    elif path.is_file():
        found = [path]
    else:
        found = [Path(match) for match in glob.glob(str(path), recursive=True)]
    found = sorted(file for file in found if file.is_file())
    if not found:
        raise DataError(f"data.source {source!r} is no file, and no folder or glob that holds any")
    for file in found:
        if kind_of(file) not in SUFFIXES:
            raise DataError(f"{file} is none of the kinds that can be read: {', '.join(SUFFIXES)}")
    return found


def kind_of(file: Path) -> str:
    """The suffix in lower case, without that of a compression."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in COMPRESSED), "")


def fingerprint_source(source: str) -> str:
    """A hash of the contents; of a Hub data set the name only, as what it holds is not here."""
    if source.startswith("hf:"):
        return source
    whole = hashlib.sha256()
    for file in find_files(source):
        with reading(file), file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        whole.update(f"{kind_of(file)} {digest}\n".encode())
    return whole.hexdigest()


def read_lines(file: Path) -> Iterator[str]:
    """Lines with their ends, one at a time, so that a few rows of a large file cost little."""
    offset = 0
    with reading(file), open_file(file) as content:
        for line in content:
            yield decode_utf8(line, file, offset)
            offset += len(line)


def decode_utf8(content: bytes, file: Path, offset: int = 0) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8: byte {offset + error.start} is {content[error.start]:#04x}; "
            "convert the file to UTF-8"
        ) from None
    return text.removeprefix("\ufeff") if offset == 0 else text


def open_file(file: Path) -> Any:
    return COMPRESSED.get(file.suffix.lower(), open)(file, "rb")


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """What goes wrong below, told as one sentence."""
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file} cannot be read: {reason}") from None
