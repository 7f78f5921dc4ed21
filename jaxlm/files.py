"""Files and folders written whole or not at all, however the process ends."""

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xxhash

from jaxlm.config import JaxlmError

StepRow = dict[str, Any]

HASHES = "hashes.json"
TEMPORARY = re.compile(r"\.jaxlm-[0-9a-f]{16}(\..*)?")


class WriteError(JaxlmError):
    """A file or folder that cannot be written."""


def as_path(name: str, value: Any) -> Path:
    """A text as a path; JaxlmError for what is neither."""
    if not isinstance(value, str | Path):
        raise JaxlmError(f"{name} must be a path, got {value!r:.60}")
    return Path(value)


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
            sync(temporary.parent)
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
        make_folder(temporary.parent)
        remove_remains(temporary.parent)
        lock = make_locked(temporary)
        try:
            yield temporary
            sync_tree(temporary)
            os.replace(temporary, path)
            sync(temporary.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(lock)


def make_folder(path: Path) -> None:
    """Make a folder and its parents so that they outlive a power cut."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in new:
        sync(folder.parent)


def make_locked(folder: Path) -> int:
    """Make a new folder, locked until the descriptor returned is closed or the process ends."""
    while True:
        folder.mkdir()
        descriptor = os.open(folder, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.exists():  # else another process took it for remains, before it was locked
            return descriptor
        os.close(descriptor)


def remove_remains(folder: Path) -> None:
    """Delete temporary folders that processes left in a folder when they were killed."""
    for path in folder.glob(".jaxlm-*"):
        if not TEMPORARY.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            continue
        with suppress(OSError):  # locked: its process is alive; or it has gone meanwhile
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


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


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk.

    After a power cut a rename may outlive the data, and a file its name.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that syncs no folders
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until all that a folder holds is on disk."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(root, name))
        sync(Path(root))


def file_hash(path: Path) -> str:
    """The XXH3 hash of a file's content: it tells damage, not forgery.

    Raises: OSError.
    """
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def seal(folder: Path) -> None:
    """Write the hash of each file of a folder beside them, and wait until all is on disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): file_hash(path) for path in files}
    (folder / HASHES).write_text(json.dumps(hashes, indent=1), encoding="utf-8")
    sync_tree(folder)


def damage(folder: Path, parts: tuple[str, ...], sealed: bool) -> str | None:
    """What is wrong with the files below some folders of a sealed one; None if nothing.

    A folder that is not `sealed`, by a version that did not, may lack the hashes.
    """
    file = folder / HASHES
    try:
        hashes = json.loads(file.read_text(encoding="utf-8"))
        for name, value in hashes.items():
            if name.partition("/")[0] in parts and file_hash(folder / name) != value:
                return f"{name} is not as it was written"
    except FileNotFoundError as error:
        missing = Path(error.filename)
        if missing != file or sealed:
            return f"{missing.relative_to(folder)} is missing"
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except (ValueError, AttributeError):
        return f"{HASHES} is not as it was written"
    return None


def to_json(value: Any, indent: int | None = 2) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False) + "\n"


class RowFile:
    """A .jsonl file that rows are added to, each with its `step`; a hash tells later changes.

    Raises: WriteError.
    """

    def __init__(self, path: Path):
        self.path = path
        self._size, self._digest = -1, xxhash.xxh3_128()  # -1: not read yet

    def append(self, row: StepRow) -> None:
        """Add a row; it outlives this process from here on, and a power cut after `mark`."""
        self._read()
        line = to_json(row, indent=None).encode()
        with write_errors(self.path), self.path.open("ab") as file:
            file.write(line)
        self._digest.update(line)
        self._size += len(line)

    def mark(self) -> list:
        """Size and hash of what is there, which is on disk from here on."""
        self._read()
        if self._size:
            with write_errors(self.path):
                sync(self.path)
                sync(self.path.parent)
        return [self._size, self._digest.hexdigest()]

    def rewind(self, step: int, mark: list | None) -> list[StepRow]:
        """Cut what came after a step, and return the rows left.

        Where the file is not as it was at `mark`, this is told, and lines that are no rows are
        dropped.
        """
        content = self.path.read_bytes() if self.path.exists() else b""
        size, value = mark or (0, None)
        whole = value is not None and xxhash.xxh3_128_hexdigest(content[:size]) == value
        found, dropped = read_rows_of(content[:size] if whole else content)
        found = [row for row in found if row["step"] <= step]
        if not whole and (mark or dropped):
            lost = f"; {dropped} lines that are no rows are dropped" if dropped else ""
            print(f"{self.path} is not as it was at step {step}{lost}")
        write_file(self.path, "".join(to_json(row, indent=None) for row in found))
        self._size = -1
        return found

    def _read(self) -> None:
        if self._size < 0:
            content = self.path.read_bytes() if self.path.exists() else b""
            self._size, self._digest = len(content), xxhash.xxh3_128(content)


def read_rows_of(content: bytes) -> tuple[list[StepRow], int]:
    """The rows of a .jsonl file of a run, and how many of its lines are none.

    A last line that a crash tore is left out.
    """
    rows, lines = [], content.split(b"\n")[:-1]
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows, len(lines) - len(rows)


def rows_in(path: Path) -> list[StepRow]:
    """The rows of a .jsonl file of a run; none where it is not there."""
    return read_rows_of(path.read_bytes() if path.exists() else b"")[0]
