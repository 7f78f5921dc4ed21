"""Files and folders written whole or not at all, however the process ends."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxlm.config import JaxlmError


class WriteError(JaxlmError):
    """A file or folder that cannot be written."""


def write_file(path: str | Path, content: str | bytes) -> None:
    """Replace the contents of a file, or create it; text is written as UTF-8.

    Raises: WriteError.
    """
    data = content.encode() if isinstance(content, str) else content
    with file_in_place(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def file_in_place(path: str | Path) -> Iterator[Path]:
    """Yield an empty file of the same suffix; it takes the place of `path` when the block ends.

    After an exception the temporary file is deleted and `path` is as it was.

    Raises: WriteError, also for an OSError of the block.
    """
    path = Path(path)
    temporary = temporary_path(path)
    with write_errors(path):
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            # Some writers create the file anew, readable by its owner only.
            mode = temporary.stat().st_mode & 0o777
            yield temporary
            temporary.chmod(mode)
            sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def folder_in_place(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder; it becomes `path`, parents included, when the block ends.

    After an exception the temporary folder is deleted and `path` is as it was.

    Raises: WriteError where `path` is there already and not empty; also for an OSError of the
    block.
    """
    path = Path(path)
    temporary = temporary_path(path)
    with write_errors(path):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise WriteError(f"{path} is there already and not empty; choose another place")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    sync(file)
            os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_parent(path: str | Path) -> None:
    """Check that a file can be written later, before its content is computed.

    Raises: WriteError where its folder is missing or read-only.
    """
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise WriteError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise WriteError(f"cannot write {path}: the folder {folder} is read-only")


def temporary_path(path: Path) -> Path:
    """A new name in the same folder, so that os.replace stays within one file system."""
    return path.absolute().parent / f".jaxlm-{secrets.token_hex(8)}{path.suffix}"


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from None


def sync(file: Path) -> None:
    """Wait until a file is on disk: after a power cut a rename may outlive the data."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
