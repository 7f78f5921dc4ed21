"""The bytes of a file as text: decompressed, decoded, what goes wrong told in one sentence."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxlm.config import JaxlmError

COMPRESSED = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
# A compressed file may unpack to the larger of so many bytes and so many times its size, as a guard
# against files that would fill the memory.
MOST_UNPACKED, MOST_EXPANSION = 1 << 28, 200


class DataError(JaxlmError):
    """Text that cannot be found, read, split or cut into windows."""


def decode_utf8(content: bytes, file: Path, offset: int = 0) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8: byte {offset + error.start} is {content[error.start]:#04x}; "
            "convert the file to UTF-8, or set data.skip_unreadable if it is one of many"
        ) from None
    return text.removeprefix("\ufeff") if offset == 0 else text


def open_file(file: Path) -> Any:
    """The bytes of a file, decompressed while reading."""
    unpack = COMPRESSED.get(file.suffix.lower())
    return file.open("rb") if unpack is None else io.BufferedReader(Unpacked(file, unpack))


class Unpacked(io.RawIOBase):
    """The contents of a compressed file.

    Raises: DataError where they are far larger than the file, as a guard against exhausted memory.
    """

    def __init__(self, file: Path, unpack: Any):
        self.file, self.content = file, unpack(file, "rb")
        self.left = max(MOST_UNPACKED, MOST_EXPANSION * file.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.content.readinto(buffer)
        self.left -= count
        if self.left < 0:
            raise DataError(
                f"{self.file} unpacks to over {MOST_EXPANSION} times its size; unpack it yourself "
                "if that is right"
            )
        return count

    def close(self) -> None:
        self.content.close()
        super().close()


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn errors of reading a file into a DataError."""
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file} cannot be read: {reason}") from None
