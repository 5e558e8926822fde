"""A checkpoint by its name: where it is looked for, and what is made sure of before any work starts."""

import dataclasses
import hashlib
import logging
import os
import sys
import tempfile
from pathlib import Path

import pytest

from swin_umamba_nnunet.pretrained import (
    CheckpointError,
    WeightsNotFoundError,
    cache_folder,
    download_weights,
    ensure_weights,
    find_weights,
    get_record,
    locate,
)
from tests.messages import assert_names, raises

TINY, SMALL = get_record("vmamba_tiny_v0"), get_record("vmamba_small_v0")
checkout_folder = locate.checkout_folder  # the real one; the fixture of all tests replaces it


def place(folder, name=TINY.file_name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    return folder / name


def test_the_order_is_named_folder_checkout_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    assert find_weights(TINY) is None
    in_cache = place(cache_folder())
    assert find_weights(TINY) == in_cache
    in_checkout = place(locate.checkout_folder())
    assert find_weights(TINY) == in_checkout
    mine = place(tmp_path / "mine")
    assert find_weights(TINY) == mine
    explicit = place(tmp_path / "explicit")
    assert find_weights(TINY, explicit.parent) == explicit


def test_other_file_names_are_accepted_after_the_release_name():
    renamed = place(cache_folder(), "vmamba_tiny_e292.pth")
    assert find_weights(TINY) == renamed
    original = place(cache_folder())
    assert find_weights(TINY) == original
    assert find_weights(SMALL) is None


def test_a_named_file_is_used_whatever_its_name(tmp_path, monkeypatch):
    place(cache_folder())
    mine = place(tmp_path, "my own.bin")
    assert find_weights(TINY, mine) == mine
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(mine))
    assert find_weights(TINY) == mine


def test_a_named_path_that_does_not_exist_is_an_error_even_if_the_cache_has_the_file(tmp_path, monkeypatch):
    place(cache_folder())
    with raises(WeightsNotFoundError, "given path", tmp_path / "absent", "exist"):
        find_weights(TINY, tmp_path / "absent")
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(tmp_path / "absent"))
    with raises(WeightsNotFoundError, "SWIN_UMAMBA_WEIGHTS", tmp_path / "absent", "exist"):
        find_weights(TINY)


def test_the_working_directory_is_not_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place(tmp_path)
    place(tmp_path / "pretrained_weights")
    assert find_weights(TINY) is None


def test_the_tilde_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    mine = place(tmp_path / "weights")
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, os.path.join("~", "weights"))
    assert find_weights(TINY) == mine


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
    with raises(WeightsNotFoundError, "home", "XDG_CACHE_HOME"):
        cache_folder()


def test_the_checkout_is_recognised_by_its_pyproject(tmp_path, monkeypatch):
    monkeypatch.setattr(locate, "__file__", str(tmp_path / "swin_umamba_nnunet" / "pretrained" / "locate.py"))
    assert checkout_folder() is None
    (tmp_path / "pyproject.toml").touch()
    assert checkout_folder() == tmp_path.resolve() / "pretrained_weights"


# ------------------------------------------------------------------------------------------------- read and checked


def test_without_file_and_network_one_message_says_everything(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(tmp_path / "mine"))
    with pytest.raises(WeightsNotFoundError) as caught:
        ensure_weights("swin_umamba", scratch_trainer="nnUNetTrainerSwinUMambaScratch")
    places = (tmp_path / "mine", tmp_path / "checkout" / "pretrained_weights", cache_folder())
    facts = (TINY.file_name, TINY.url, TINY.sha256, "91,649,482 bytes", "SWIN_UMAMBA_WEIGHTS", "refused", *places)
    assert_names(caught.value, *facts, "nnUNetTrainerSwinUMambaScratch")
    assert "\n" not in str(caught.value)


def test_a_named_path_that_does_not_exist_says_how_to_go_on(tmp_path):
    with raises(WeightsNotFoundError, tmp_path / "absent.pth", TINY.url, "use Scratch"):
        ensure_weights("swin_umamba_d", tmp_path / "absent.pth", scratch_trainer="Scratch")


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with raises(WeightsNotFoundError, tmp_path / "file", TINY.url):
        ensure_weights("swin_umamba")


def test_a_file_in_the_cache_is_found_checked_and_logged(caplog, saved):
    caplog.set_level(logging.INFO)
    path = saved(TINY.name, TINY.file_name, cache_folder())
    assert ensure_weights([dataclasses.replace(TINY, size_bytes=None)]).path == path
    assert_names(caplog.text, path, hashlib.sha256(path.read_bytes()).hexdigest(), "different", "not confirmed")


def test_a_bad_file_in_the_cache_stops_instead_of_being_passed_over():
    cache_folder().mkdir(parents=True)
    (cache_folder() / TINY.file_name).write_text("<html>")
    with raises(CheckpointError, TINY.file_name, "web page", TINY.url):
        ensure_weights("swin_umamba")


def test_a_file_of_the_published_name_must_hold_the_whole_classifier(save, state_dict):
    encoder = {key: value for key, value in state_dict().items() if not key.startswith(("norm.", "head."))}
    assert ensure_weights("swin_umamba", save(encoder, "my_own.pth")).path.name == "my_own.pth"
    with raises(CheckpointError, "4 missing"):
        ensure_weights("swin_umamba", save(encoder, TINY.file_name))


@pytest.mark.parametrize("name", TINY.file_names)
def test_a_found_file_of_another_size_than_the_published_one_stops(monkeypatch, name, saved):
    path = saved(TINY.name, name, cache_folder())
    facts = (name, f"{path.stat().st_size:,}", "91,649,482", "another name", "SWIN_UMAMBA_WEIGHTS", TINY.url)
    with raises(CheckpointError, *facts) as caught:
        ensure_weights("swin_umamba")
    assert "\n" not in str(caught.value)
    renamed = path.rename(path.with_name("saved_again.pth"))
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(renamed))
    assert ensure_weights("swin_umamba").path == renamed


def test_a_copy_of_another_name_the_user_points_at_may_have_another_hash(caplog, saved):
    path = saved(TINY.name, "saved_again.pth")
    assert ensure_weights([dataclasses.replace(TINY, sha256_confirmed=True)], path).path == path
    assert caplog.records[-1].levelno == logging.WARNING
    assert "is confirmed" in caplog.text


@pytest.fixture
def published(server, saved):
    """A function (checkpoint's name, **values) -> Tiny's record as if the server's content were its published file."""

    def publish(name=TINY.name, **values):
        server.content = saved(name).read_bytes()
        known = {"size_bytes": len(server.content), "sha256": hashlib.sha256(server.content).hexdigest()}
        return dataclasses.replace(TINY, urls=(server.url,), **{**known, **values})

    return publish


def test_what_is_not_there_is_downloaded_and_read(published, server):
    record = published(sha256_confirmed=True)
    checkpoint = ensure_weights([record])
    assert checkpoint.path == cache_folder() / TINY.file_name
    assert (checkpoint.sha256, len(checkpoint.state_dict)) == (record.sha256, 212)
    assert ensure_weights([record]).sha256 == checkpoint.sha256
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("name", "values", "facts"),
    [
        (TINY.name, {"sha256": "0" * 64, "sha256_confirmed": True}, ("sha256", "0" * 64, "delete")),
        (SMALL.name, {"size_bytes": None}, ("VMamba-Tiny", "is VMamba-Small")),
    ],
)
def test_a_download_of_something_else_never_gets_the_name(published, server, name, values, facts):
    with raises(WeightsNotFoundError, server.url, *facts):
        ensure_weights([published(name, **values)])
    assert [path.suffix for path in cache_folder().iterdir()] == [".lock"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_weights_in_a_folder_that_may_only_be_read(save, state_dict, monkeypatch):
    """A lab's: what is there is used, under whatever name, and what is not is told in one sentence.

    Where root runs the tests, whom permissions do not stop, this is done as another user.
    """
    user = os.geteuid()
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # pytest's folders and TMPDIR may be closed to other users
        Path(name).chmod(0o755)
        monkeypatch.setenv("XDG_CACHE_HOME", name)
        monkeypatch.setattr(locate, "checkout_folder", lambda: None)
        file = save(state_dict(), "constants.pth", cache_folder())
        file.chmod(0o444)
        file.parent.chmod(0o555)
        try:
            os.seteuid(user or 65534)
            with raises(OSError, "Permission denied"):
                (file.parent / "new").touch()
            assert ensure_weights("swin_umamba", file).path == file
            there = dataclasses.replace(TINY, file_name=file.name, size_bytes=None, sha256=None)
            assert download_weights(there, file.parent).path == file
            with raises(WeightsNotFoundError, file.parent, "Permission denied", "Scratch") as refusal:
                ensure_weights("swin_umamba_d", scratch_trainer="Scratch")
            assert "\n" not in str(refusal.value)
            assert list(file.parent.iterdir()) == [file]
        finally:
            os.seteuid(user)
            file.parent.chmod(0o755)
