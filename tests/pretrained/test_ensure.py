import dataclasses
import logging

import pytest

from swin_umamba_nnunet.pretrained import (
    CheckpointError,
    WeightsNotFoundError,
    cache_folder,
    ensure_weights,
    get_record,
    locate,
)
from swin_umamba_nnunet.pretrained.ensure import obtain_checkpoint
from tests.messages import naming

TINY = get_record("vmamba_tiny_v0")


def test_without_file_and_network_one_message_says_everything(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(tmp_path / "mine"))
    with pytest.raises(WeightsNotFoundError) as caught:
        ensure_weights("swin_umamba", scratch_trainer="nnUNetTrainerSwinUMambaScratch")
    message = str(caught.value)
    places = (tmp_path / "mine", tmp_path / "checkout" / "pretrained_weights", cache_folder())
    for part in (
        TINY.file_name, TINY.url, TINY.sha256, "91,649,482 bytes", "SWIN_UMAMBA_WEIGHTS", "refused",
        "nnUNetTrainerSwinUMambaScratch", *map(str, places),
    ):  # fmt: skip
        assert part in message
    assert "\n" not in message


def test_a_named_path_that_does_not_exist_says_how_to_go_on(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=naming(tmp_path / "absent.pth", TINY.url, "use Scratch")):
        ensure_weights("swin_umamba_d", tmp_path / "absent.pth", scratch_trainer="Scratch")


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsNotFoundError, match=naming(tmp_path / "file", TINY.url)):
        ensure_weights("swin_umamba")


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="'nonsense'"):
        ensure_weights("nonsense")


def test_a_file_in_the_cache_is_found_checked_and_logged(save, state_dict, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    path = save({"model": state_dict()}, TINY.file_name, cache_folder())
    record = dataclasses.replace(TINY, size_bytes=path.stat().st_size)
    monkeypatch.setattr("swin_umamba_nnunet.pretrained.ensure.get_record", lambda name: record)
    assert ensure_weights("swin_umamba") == path
    assert "different from the registry's, which is not confirmed" in caplog.text


def test_a_bad_file_in_the_cache_stops_instead_of_being_passed_over():
    cache_folder().mkdir(parents=True)
    (cache_folder() / TINY.file_name).write_text("<html>")
    with pytest.raises(CheckpointError, match=naming(TINY.file_name, "web page", TINY.url)):
        ensure_weights("swin_umamba")


def test_the_wrong_variant_is_named_before_any_work_starts(save, state_dict, monkeypatch):
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(save({"model": state_dict("vmamba_small_v0")})))
    with pytest.raises(CheckpointError, match=rf"is VMamba-Small.*expected VMamba-Tiny.*{TINY.file_name}"):
        ensure_weights("swin_umamba")


def test_a_file_of_the_published_name_must_hold_the_whole_classifier(save, state_dict):
    encoder = {key: value for key, value in state_dict().items() if not key.startswith(("norm.", "head."))}
    assert ensure_weights("swin_umamba", save(encoder, "my_own.pth")).name == "my_own.pth"
    with pytest.raises(CheckpointError, match="4 missing"):
        ensure_weights("swin_umamba", save(encoder, TINY.file_name))


@pytest.mark.parametrize("name", TINY.file_names)
def test_a_found_file_of_another_size_than_the_published_one_stops(save, state_dict, monkeypatch, name):
    path = save({"model": state_dict()}, name, cache_folder())
    found = f"{path.stat().st_size:,}"
    facts = naming(name, found, "91,649,482", "another name", "SWIN_UMAMBA_WEIGHTS", TINY.url)
    with pytest.raises(CheckpointError, match=facts) as caught:
        ensure_weights("swin_umamba")
    assert "\n" not in str(caught.value)
    renamed = path.rename(path.with_name("saved_again.pth"))
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(renamed))
    assert ensure_weights("swin_umamba") == renamed


def test_a_found_file_with_another_hash_than_a_confirmed_one_stops(save, state_dict):
    record = dataclasses.replace(TINY, sha256_confirmed=True, size_bytes=None)
    path = save({"model": state_dict()}, TINY.file_name, cache_folder())
    with pytest.raises(CheckpointError, match=naming(path, "sha256", TINY.sha256, "delete", TINY.url)):
        obtain_checkpoint(record)


def test_a_copy_of_another_name_the_user_points_at_may_have_another_hash(save, state_dict, caplog):
    path = save({"model": state_dict()}, "saved_again.pth")
    assert obtain_checkpoint(dataclasses.replace(TINY, sha256_confirmed=True), path).path == path
    assert caplog.records[-1].levelno == logging.WARNING
    assert "is confirmed" in caplog.text


def test_what_is_not_there_is_downloaded_and_read(save, state_dict, server):
    server.content = save({"model": state_dict()}).read_bytes()
    record = dataclasses.replace(TINY, url=server.url, mirrors=(), size_bytes=len(server.content))
    checkpoint = obtain_checkpoint(record)
    assert checkpoint.path == cache_folder() / TINY.file_name
    assert len(checkpoint.state_dict) == 212
    assert obtain_checkpoint(record).sha256 == checkpoint.sha256
    assert len(server.requests) == 1


def test_a_download_of_another_network_never_gets_the_name(save, state_dict, server):
    server.content = save({"model": state_dict("vmamba_small_v0")}).read_bytes()
    record = dataclasses.replace(TINY, url=server.url, mirrors=(), size_bytes=None)
    with pytest.raises(WeightsNotFoundError, match=naming(server.url, "VMamba-Tiny", "is VMamba-Small")):
        obtain_checkpoint(record)
    assert not (cache_folder() / TINY.file_name).exists()
