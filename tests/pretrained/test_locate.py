import os
from pathlib import Path

import pytest

from swin_umamba_nnunet.pretrained import WeightsNotFoundError, cache_folder, find_weights, get_record, locate
from tests.messages import naming

RECORD = get_record("vmamba_tiny_v0")
checkout_folder = locate.checkout_folder  # the real one; the fixture of all tests replaces it


def place(folder: Path, name: str = RECORD.file_name) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    return folder / name


def test_the_order_is_named_folder_checkout_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    assert find_weights(RECORD) is None
    in_cache = place(cache_folder())
    assert find_weights(RECORD) == in_cache
    in_checkout = place(locate.checkout_folder())
    assert find_weights(RECORD) == in_checkout
    mine = place(tmp_path / "mine")
    assert find_weights(RECORD) == mine
    explicit = place(tmp_path / "explicit")
    assert find_weights(RECORD, explicit.parent) == explicit


def test_other_file_names_are_accepted_after_the_release_name():
    renamed = place(cache_folder(), "vmamba_tiny_e292.pth")
    assert find_weights(RECORD) == renamed
    original = place(cache_folder())
    assert find_weights(RECORD) == original
    assert find_weights(get_record("vmamba_small_v0")) is None


def test_a_named_file_is_used_whatever_its_name(tmp_path, monkeypatch):
    place(cache_folder())
    mine = place(tmp_path, "my own.bin")
    assert find_weights(RECORD, mine) == mine
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(mine))
    assert find_weights(RECORD) == mine


def test_a_named_path_that_does_not_exist_is_an_error_even_if_the_cache_has_the_file(tmp_path, monkeypatch):
    place(cache_folder())
    with pytest.raises(WeightsNotFoundError, match=naming("given path", tmp_path / "absent", "exist")):
        find_weights(RECORD, tmp_path / "absent")
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(WeightsNotFoundError, match=naming("SWIN_UMAMBA_WEIGHTS", tmp_path / "absent", "exist")):
        find_weights(RECORD)


def test_the_working_directory_is_not_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place(tmp_path)
    place(tmp_path / "pretrained_weights")
    assert find_weights(RECORD) is None


def test_the_tilde_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    mine = place(tmp_path / "weights")
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, os.path.join("~", "weights"))
    assert find_weights(RECORD) == mine


def test_the_cache_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "swin_umamba_nnunet"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "swin_umamba_nnunet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "swin_umamba_nnunet"


def test_no_home_and_no_xdg_is_one_clear_error(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(WeightsNotFoundError, match=naming("home", "XDG_CACHE_HOME")):
        cache_folder()


def test_the_checkout_is_recognised_by_its_pyproject(tmp_path, monkeypatch):
    monkeypatch.setattr(locate, "__file__", str(tmp_path / "swin_umamba_nnunet" / "pretrained" / "locate.py"))
    assert checkout_folder() is None
    (tmp_path / "pyproject.toml").touch()
    assert checkout_folder() == tmp_path.resolve() / "pretrained_weights"
