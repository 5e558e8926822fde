"""The transfer of a checkpoint: resumed, locked, checked, all or nothing; reading it is `test_checkpoint`'s."""

import dataclasses
import subprocess
import sys
import textwrap
from unittest import mock

import pytest

from swin_umamba_nnunet.pretrained import CheckpointError, DownloadError, download, download_weights, get_record
from swin_umamba_nnunet.pretrained.download import mirror_urls
from tests.messages import raises

CONTENT_SIZE = 4 + 256 * 1000
Read = dataclasses.make_dataclass("Read", ["path", "content"])


@pytest.fixture(autouse=True)
def readings(monkeypatch):
    """What has arrived is taken for the checkpoint; the files that were read, in order."""
    readings = []

    def read(record, path):
        readings.append(path)
        return Read(path, path.read_bytes())

    monkeypatch.setattr(download, "_read_as_published", read)
    return readings


@pytest.fixture
def record(server):
    return dataclasses.replace(get_record("vmamba_tiny_v0"), urls=(server.url,), size_bytes=CONTENT_SIZE, sha256=None)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "swin_umamba_nnunet"


@pytest.fixture
def partial(folder, record):
    return folder / f"{record.file_name}.partial"


@pytest.fixture
def refused(folder):
    """A function (record, *facts, left=, **options): the message names the facts, `left` is left."""

    def refused(record, *facts, left=(), **options):
        with raises(DownloadError, *facts):
            download_weights(record, folder, **options)
        assert left is None or left_in(folder) == list(left)

    return refused


@pytest.fixture
def arrives(folder, server):
    """A function (record, **options): what the server has arrives and is read."""

    def arrives(record, **options):
        assert download_weights(record, folder, **options).content == server.content

    return arrives


def left_in(folder):
    """What lies there besides the lock."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.exists() else []


def test_a_download_is_read_once_and_gets_its_name(record, folder, server, partial, readings):
    checkpoint = download_weights(record, folder)
    assert checkpoint.path == folder / record.file_name
    assert checkpoint.path.read_bytes() == server.content == checkpoint.content
    assert left_in(folder) == [record.file_name]
    assert readings == [partial]


def test_a_file_that_is_there_is_read_and_not_fetched_again(record, folder, server, readings):
    first = download_weights(record, folder)
    assert download_weights(record, folder) == first
    assert len(server.requests) == 1
    assert readings[1:] == [first.path]


def test_a_break_off_is_resumed_within_the_call(record, server, arrives):
    server.script = ["break 100000", "break 50000"]
    arrives(record)
    assert [request.get("Range") for request in server.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert server.requests[1]["If-Range"] == server.etag


@pytest.mark.parametrize("etag", ['"first"', ""])
def test_a_server_that_cannot_resume_starts_again(record, server, etag, refused, arrives):
    server.etag, server.resumable = etag, False
    server.script = ["break 100000", "break 0"]
    refused(record, server.url, " 0 of 256,004 bytes", left=None)
    arrives(record)


def test_a_file_that_changed_on_the_server_is_not_mixed_with_the_old_one(record, server, refused, arrives):
    server.script = ["break 100000", "break 0"]
    refused(record, left=None)
    server.content, server.etag = server.content[:4] + b"x" * (CONTENT_SIZE - 4), '"second"'
    arrives(record)


def test_an_answer_that_starts_elsewhere_is_not_appended(record, server, refused, arrives):
    server.script = ["break 100000"]
    server.askew = 1
    refused(record, server.url, "100000")
    arrives(record)


def test_a_partial_file_longer_than_the_servers_is_dropped(record, folder, server, partial, arrives):
    folder.mkdir(parents=True)
    partial.write_bytes(b"?" * (CONTENT_SIZE + 1))
    partial.with_name(partial.name + ".etag").write_text(server.etag)
    arrives(record)


def test_an_error_status_is_told_and_the_mirror_tried(record, server, refused, arrives):
    server.script = ["404", "503"]
    record = dataclasses.replace(record, urls=(server.url, server.url + "?mirror"))
    refused(record, "404", f"{server.url}?mirror", "503")
    server.script = ["404"]
    arrives(record)


def test_a_server_that_falls_silent_midway_leaves_what_can_be_resumed(
    record, folder, server, partial, refused, monkeypatch
):
    """And it is not waited for when it says nothing at all."""
    monkeypatch.setattr(download, "_TIMEOUT_S", 0.2)
    server.script = ["stall 100000", "hang"]
    refused(record, server.url, "timed out", left=None)
    assert partial.stat().st_size == 100_000
    assert not (folder / record.file_name).exists()


def test_the_proxy_variables_are_respected(record, server, monkeypatch, arrives):
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/file.pth"))
    record = dataclasses.replace(record, urls=("http://nowhere.invalid/file.pth",))
    arrives(record)
    assert server.requests[0]["Host"] == "nowhere.invalid"


def test_a_full_disk_is_told(record, folder, monkeypatch, refused):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("swin_umamba_nnunet.pretrained.download.os.fsync", full)
    refused(record, folder, "No space left", "XDG_CACHE_HOME", left=None)
    assert not (folder / record.file_name).exists()


def test_of_two_processes_one_fetches_and_the_other_waits(record, folder, server):
    code = textwrap.dedent(f"""
        import dataclasses, logging, pathlib
        from swin_umamba_nnunet.pretrained import download, get_record
        download.HTTP_HOSTS = frozenset({{"127.0.0.1"}})
        download._read_as_published = lambda record, path: dataclasses.make_dataclass("Read", ["path"])(path)
        logging.basicConfig(level=logging.INFO)
        record = dataclasses.replace(
            get_record("vmamba_tiny_v0"), urls=({server.url!r},), size_bytes={CONTENT_SIZE}, sha256=None
        )
        print(download.download_weights(record, pathlib.Path({str(folder)!r})).path)
    """)

    def start():
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    server.script = ["wait"]
    with start() as first:
        assert server.arrived.wait(60)
        with start() as second:
            assert any("Another process is fetching" in line for line in second.stderr)
            server.released.set()
            for process in (first, second):
                output, errors = process.communicate(timeout=60)
                assert process.returncode == 0, errors
                assert output.strip() == str(folder / record.file_name)
    assert len(server.requests) == 1
    assert (folder / record.file_name).read_bytes() == server.content


# -------------------------------------------------------------------------------------- mirrors and kinds of address


def test_an_address_without_encryption_is_not_fetched(record, folder, server, monkeypatch):
    monkeypatch.setattr(download, "HTTP_HOSTS", frozenset())
    for url in (server.url, "ftp://example.org/file.pth"):
        with raises(DownloadError, url, "https://", "file://"):
            download_weights(dataclasses.replace(record, urls=(url,)), folder)
    assert server.requests == []


@pytest.mark.parametrize("target", ["http://example.org/file.pth", "file:///etc/passwd", "ftp://example.org/file.pth"])
def test_a_redirection_to_an_unsafe_address_is_not_followed(record, server, target, refused):
    server.script = [f"redirect {target}"]
    refused(record, target)


def test_a_redirection_to_a_safe_address_is_followed(record, server, arrives):
    server.script = [f"redirect {server.url}?moved"]
    arrives(record)
    assert len(server.requests) == 2


def test_a_mirror_is_tried_where_the_first_address_cannot_be_reached_or_sends_something_else(
    record, folder, server, monkeypatch, arrives
):
    unreachable = dataclasses.replace(record, urls=("http://127.0.0.1:9/file.pth", server.url))
    arrives(unreachable)
    (folder / record.file_name).unlink()
    readings = [CheckpointError("is something else"), Read(folder, server.content)]
    monkeypatch.setattr(download, "_read_as_published", mock.Mock(side_effect=readings))
    trusted = dataclasses.replace(record, urls=(record.url, server.url))
    server.script = ["wrong"]
    arrives(trusted)
    assert left_in(folder) == [record.file_name]
    assert (folder / record.file_name).read_bytes() == server.content


def test_a_machine_that_cannot_be_reached_is_asked_once_and_the_cause_told(record, folder):
    url = "http://127.0.0.1:9/{}.pth"
    with raises(DownloadError, url.format(1), "refused") as caught:
        download_weights(dataclasses.replace(record, urls=(url.format(1), url.format(2))), folder)
    assert str(caught.value).count("cannot be reached") == 1
    assert left_in(folder) == []


def test_a_file_address_is_copied_and_checked(record, folder, tmp_path, server, refused, arrives):
    original = tmp_path / "with space #1.pth"
    original.write_bytes(server.content)
    arrives(record, sources=[original.as_uri()])
    (folder / record.file_name).unlink()
    original.write_bytes(server.content[:-1])
    refused(record, "with%20space", "256,003", "256,004", sources=[original.as_uri()])
    with raises(DownloadError, "absent.pth"):
        download_weights(record, folder, sources=[(tmp_path / "absent.pth").as_uri()])


def test_mirrors_may_be_folders_files_and_addresses(record, tmp_path):
    other = record.other_file_names[0]
    (tmp_path / other).touch()
    assert mirror_urls(record, str(tmp_path)) == [(tmp_path / other).as_uri()]
    assert mirror_urls(record, str(tmp_path / other)) == [(tmp_path / other).as_uri()]
    assert mirror_urls(record, "https://a.org/w/") == [f"https://a.org/w/{name}" for name in record.file_names]
    assert mirror_urls(record, "https://a.org/w/x.pth") == ["https://a.org/w/x.pth"]
    assert mirror_urls(record, tmp_path.as_uri())[1] == (tmp_path / other).as_uri()
    for mirror, facts in ((tmp_path / "absent", ("exist",)), (tmp_path.parent, record.file_names)):
        with raises(DownloadError, mirror, *facts):
            mirror_urls(record, str(mirror))
    with raises(DownloadError, "http://a.org/w/", "https://"):
        mirror_urls(record, "http://a.org/w/")
