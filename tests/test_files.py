"""Files and folders are written whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from jaxlm.files import WriteError, check_parent, file_in_place, folder_in_place, write_file


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("content", ["好\n", b"\x00\xff"])
def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text("old")
    write_file(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_modes_follow_the_umask(tmp_path, umask):
    with file_in_place(tmp_path / "file") as temporary:
        temporary.unlink()
        temporary.touch(0o600)  # as a library does that creates the file anew
    with folder_in_place(tmp_path / "folder") as temporary:
        write_file(temporary / "inner", "")
    modes = [mode(tmp_path / name) for name in ("file", "folder", "folder/inner")]
    assert modes == [0o640, 0o750, 0o640]


def test_a_file_named_like_a_temporary_one_is_left_alone(tmp_path):
    for name in ("a.json.tmp", ".a.json.tmp", f".a.json.{os.getpid()}"):
        (tmp_path / name).write_text("mine")
    before = {path.name for path in tmp_path.iterdir()}
    write_file(tmp_path / "a.json", "new")
    assert {path.name for path in tmp_path.iterdir()} == before | {"a.json"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("in_place", [file_in_place, folder_in_place])
def test_a_block_that_fails_changes_nothing(tmp_path, in_place, error):
    if in_place is file_in_place:
        (tmp_path / "a").write_text("old")
    before = list(tmp_path.iterdir())

    def fail():
        with in_place(tmp_path / "a") as temporary:
            (temporary / "b" if temporary.is_dir() else temporary).write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == before
    assert all(path.read_text() == "old" for path in before)


def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("ten years")
    with pytest.raises(WriteError, match=r"cannot write .*folder: Is a directory"):
        write_file(tmp_path / "folder", "")
    with pytest.raises(WriteError, match=r"cannot write .*: No such file or directory"):
        write_file(tmp_path / "nowhere" / "a", "")
    with pytest.raises(WriteError, match="No space left"), file_in_place(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    with pytest.raises(WriteError, match="is there already"), folder_in_place(tmp_path / "folder"):
        pass
    with pytest.raises(WriteError, match="there is no folder"):
        check_parent(tmp_path / "nowhere" / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "ten years"


def test_a_folder_takes_an_empty_ones_place_and_makes_its_parents(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "a" / "b"):
        with folder_in_place(path) as temporary:
            (temporary / "c").write_text("whole")
        assert (path / "c").read_text() == "whole"
        assert [other.name for other in path.parent.iterdir() if other.name[0] == "."] == []
