"""Files that are complete or not there."""

import pytest

from swin_umamba_nnunet._atomic import replacing, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


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
