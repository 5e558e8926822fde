"""Files and folders that are complete or not there."""

import errno
import os
import subprocess
import sys

import pytest
from filelock import FileLock

from swin_umamba_nnunet._atomic import new_folder, replacing, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def texts(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_text_is_utf_8_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "table.txt"
    path.write_text("a longer text than the next one")
    write_text(path, "größer – 1\n")
    assert path.read_bytes() == "größer – 1\n".encode()
    assert names(tmp_path) == ["table.txt"]


def test_an_error_while_writing_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "table.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud800")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["table.txt"]


def test_the_old_content_is_there_until_the_end(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    with replacing(path) as first, replacing(path) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["picture.png"]


def test_what_cannot_take_its_place_is_removed(tmp_path):
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        write_text(tmp_path / "folder", "text")
    assert names(tmp_path) == ["folder"]


@pytest.fixture
def target(tmp_path):
    """A place for a folder, in a folder that is not there; its name means something to glob."""
    return tmp_path / "raw" / "Data [1]"


def test_a_folder_is_complete_or_not_there(target):
    with pytest.raises(RuntimeError, match="half way"), new_folder(target) as folder:  # noqa: PT012
        (folder / "imagesTr").mkdir()
        raise RuntimeError("half way")
    assert names(target.parent) == []
    with new_folder(target) as folder:
        (folder / "a").write_text("a")
        assert not target.exists()
    assert texts(target.parent) == {"Data [1]/a": "a"}


def test_a_folder_that_is_there_stays(target):
    target.mkdir(parents=True)
    (target / "a").write_text("mine")
    with pytest.raises(FileExistsError, match="already exists"), new_folder(target):
        pytest.fail("the block must not run")
    assert texts(target.parent) == {"Data [1]/a": "mine"}


def test_the_rename_that_fails_is_taken_back(target, monkeypatch):
    target.mkdir(parents=True)
    (target / "a").write_text("old")
    replace, calls = os.replace, []

    def fails_the_second_time(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise OSError(errno.EIO, "the disk died")
        replace(*paths)

    monkeypatch.setattr(os, "replace", fails_the_second_time)
    with pytest.raises(OSError, match="the disk died"), new_folder(target, overwrite=True) as folder:
        (folder / "a").write_text("new")
    assert texts(target.parent) == {"Data [1]/a": "old"}


def test_what_a_killed_run_left_is_put_right(target):
    """Killed between the two renames: the old folder comes back; half a folder goes."""
    for name in (".Data [1].replaced-1", ".Data [1].partial-2"):
        (target.parent / name).mkdir(parents=True)
    (target.parent / ".Data [1].replaced-1/a").write_text("old")
    with pytest.raises(FileExistsError), new_folder(target):
        pass
    assert texts(target.parent) == {"Data [1]/a": "old"}


def test_killed_while_writing_and_repeated(target):
    code = (
        "import os, pathlib\nfrom swin_umamba_nnunet._atomic import new_folder\n"
        f"with new_folder(pathlib.Path({str(target)!r})) as folder:\n"
        "    (folder / 'half').write_text('')\n    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert not target.exists()
    with new_folder(target) as folder:
        (folder / "whole").write_text("")
    assert texts(target.parent) == {"Data [1]/whole": ""}


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "no"), NotImplementedError()], ids=repr)
def test_a_file_system_without_locks(target, monkeypatch, error):
    def acquire(*_, **__):
        raise error

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with new_folder(target) as folder:
        (folder / "whole").write_text("")
    assert texts(target) == {"whole": ""}


def test_two_at_a_time_are_kept_apart(target):
    target.parent.mkdir()
    lock = FileLock(target.parent / ".Data [1].lock")
    lock.acquire()
    with pytest.raises(FileExistsError, match="another process"), new_folder(target):
        pytest.fail("the block must not run")
    lock.release()
    with new_folder(target):
        pass
