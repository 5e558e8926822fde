import dataclasses
import hashlib
import logging
import subprocess
import sys
import textwrap

import pytest

from swin_umamba_nnunet.pretrained import CheckpointError, DownloadError, addresses, download_weights, get_record
from swin_umamba_nnunet.pretrained.addresses import mirror_urls
from tests.messages import naming

CONTENT_SIZE = 4 + 256 * 1000


@pytest.fixture
def record(server):
    return dataclasses.replace(
        get_record("vmamba_tiny_v0"), url=server.url, mirrors=(), size_bytes=CONTENT_SIZE, sha256=None
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "swin_umamba_nnunet"


@pytest.fixture
def partial(folder, record):
    return folder / f"{record.file_name}.partial"


def left_in(folder):
    """What lies there besides the lock."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") if folder.exists() else []


def test_a_download_is_checked_and_gets_its_name(record, folder, server, caplog):
    caplog.set_level(logging.INFO)
    checked = []
    path = download_weights(record, folder, check=lambda file: checked.append(file.read_bytes()))
    assert path == folder / record.file_name
    assert path.read_bytes() == server.content == checked[0]
    assert left_in(folder) == [record.file_name]
    assert hashlib.sha256(server.content).hexdigest() in caplog.text


def test_a_file_that_is_there_is_not_fetched_again(record, folder, server):
    download_weights(record, folder)
    download_weights(record, folder)
    assert len(server.requests) == 1


def test_a_break_off_is_resumed_within_the_call(record, folder, server):
    server.script = ["break 100000", "break 50000"]
    assert download_weights(record, folder).read_bytes() == server.content
    assert [request.get("Range") for request in server.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert server.requests[1]["If-Range"] == server.etag


def test_a_break_off_without_progress_stops_and_the_next_call_resumes(record, folder, server, partial):
    server.script = ["break 100000", "break 0"]
    with pytest.raises(DownloadError, match=naming(server.url, "100,000 of 256,004 bytes")):
        download_weights(record, folder)
    assert left_in(folder) == [partial.name, partial.name + ".etag"]
    assert download_weights(record, folder).read_bytes() == server.content
    assert server.requests[-1]["Range"] == "bytes=100000-"
    assert left_in(folder) == [record.file_name]


@pytest.mark.parametrize("etag", ['"first"', ""])
def test_a_server_that_cannot_resume_starts_again(record, folder, server, etag):
    server.etag, server.resumable = etag, False
    server.script = ["break 100000", "break 0"]
    with pytest.raises(DownloadError, match=naming(server.url, " 0 of 256,004 bytes")):
        download_weights(record, folder)
    assert download_weights(record, folder).read_bytes() == server.content


def test_a_file_that_changed_on_the_server_is_not_mixed_with_the_old_one(record, folder, server):
    server.script = ["break 100000", "break 0"]
    with pytest.raises(DownloadError):
        download_weights(record, folder)
    server.content, server.etag = server.content[:4] + b"x" * (CONTENT_SIZE - 4), '"second"'
    assert download_weights(record, folder).read_bytes() == server.content


def test_an_answer_that_starts_elsewhere_is_not_appended(record, folder, server):
    server.script = ["break 100000"]
    server.askew = 1
    with pytest.raises(DownloadError, match=naming(server.url, "100000")):
        download_weights(record, folder)
    assert left_in(folder) == []
    assert download_weights(record, folder).read_bytes() == server.content


def test_a_partial_file_longer_than_the_servers_is_dropped(record, folder, server, partial):
    folder.mkdir(parents=True)
    partial.write_bytes(b"?" * (CONTENT_SIZE + 1))
    partial.with_name(partial.name + ".etag").write_text(server.etag)
    assert download_weights(record, folder).read_bytes() == server.content


def test_another_size_is_refused_before_it_is_fetched(record, folder, server):
    record = dataclasses.replace(record, size_bytes=CONTENT_SIZE + 1)
    with pytest.raises(DownloadError, match=naming(server.url, "256,004", "256,005")):
        download_weights(record, folder)
    assert left_in(folder) == []


def test_a_confirmed_hash_that_differs_stops(record, folder):
    record = dataclasses.replace(record, sha256="0" * 64, sha256_confirmed=True)
    with pytest.raises(DownloadError, match=f"sha256 .*expected {'0' * 64}"):
        download_weights(record, folder)
    assert left_in(folder) == []


def test_a_confirmed_hash_that_agrees_passes(record, folder, server):
    digest = hashlib.sha256(server.content).hexdigest()
    download_weights(dataclasses.replace(record, sha256=digest, sha256_confirmed=True), folder)
    assert left_in(folder) == [record.file_name]


def test_an_unconfirmed_hash_that_differs_is_logged_only(record, folder, caplog):
    caplog.set_level(logging.INFO)
    download_weights(dataclasses.replace(record, sha256="0" * 64), folder)
    assert "not confirmed" in caplog.text


def test_a_file_the_check_refuses_leaves_nothing(record, folder):
    def refuse(file):
        raise CheckpointError(f"{file} is something else")

    with pytest.raises(DownloadError, match=naming(record.url, "VMamba-Tiny", ".partial")):
        download_weights(record, folder, check=refuse)
    assert left_in(folder) == []


def test_wrong_bytes_of_the_right_size_are_refused(record, folder, server):
    server.content = b"\x00" * CONTENT_SIZE
    with pytest.raises(DownloadError, match="not a PyTorch checkpoint"):
        download_weights(record, folder)
    assert left_in(folder) == []


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_refused(record, folder, server, content_type):
    server.content, server.content_type = b"<!DOCTYPE html><html>Please log in</html>", content_type
    record = dataclasses.replace(record, size_bytes=None)
    with pytest.raises(DownloadError, match=naming(server.url, "web page")):
        download_weights(record, folder)
    assert left_in(folder) == []


def test_an_error_status_is_told_and_the_mirror_tried(record, folder, server):
    server.script = ["404", "503"]
    record = dataclasses.replace(record, mirrors=(server.url + "?mirror",))
    with pytest.raises(DownloadError, match=naming("404", f"{server.url}?mirror", "503")):
        download_weights(record, folder)
    assert left_in(folder) == []
    server.script = ["404"]
    assert download_weights(record, folder).read_bytes() == server.content


def test_a_silent_server_is_not_waited_for(record, folder, server):
    server.script = ["hang"]
    with pytest.raises(DownloadError, match=naming(server.url, "timed out")):
        download_weights(record, folder, timeout_s=0.2)
    assert left_in(folder) == []


def test_a_server_that_falls_silent_midway_leaves_what_can_be_resumed(record, folder, server, partial):
    server.script = ["stall 100000", "stall 0"]
    with pytest.raises(DownloadError, match=naming(server.url, "stopped")):
        download_weights(record, folder, timeout_s=0.2)
    assert partial.stat().st_size == 100_000
    assert not (folder / record.file_name).exists()


def test_no_network_is_told_with_its_cause(record, folder):
    with pytest.raises(DownloadError, match=naming("http://127.0.0.1:9/file.pth", "refused")):
        download_weights(dataclasses.replace(record, url="http://127.0.0.1:9/file.pth"), folder)


def test_the_proxy_variables_are_respected(record, folder, server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/file.pth"))
    record = dataclasses.replace(record, url="http://nowhere.invalid/file.pth")
    assert download_weights(record, folder).read_bytes() == server.content
    assert server.requests[0]["Host"] == "nowhere.invalid"


def test_a_folder_that_cannot_be_written_is_told(record, tmp_path, server):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=naming(tmp_path / "file" / "cache")):
        download_weights(record, tmp_path / "file" / "cache")
    assert server.requests == []


def test_a_full_disk_is_told(record, folder, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("swin_umamba_nnunet.pretrained.download.os.fsync", full)
    with pytest.raises(DownloadError, match=naming(folder, "No space left")):
        download_weights(record, folder)
    assert not (folder / record.file_name).exists()


def test_of_two_processes_one_fetches_and_the_other_waits(record, folder, server):
    code = textwrap.dedent(f"""
        import dataclasses, logging, pathlib
        from swin_umamba_nnunet.pretrained import addresses, download_weights, get_record
        addresses.HTTP_HOSTS = frozenset({{"127.0.0.1"}})
        logging.basicConfig(level=logging.INFO)
        record = dataclasses.replace(
            get_record("vmamba_tiny_v0"), url={server.url!r}, mirrors=(), size_bytes={CONTENT_SIZE}, sha256=None
        )
        print(download_weights(record, pathlib.Path({str(folder)!r})))
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
    monkeypatch.setattr(addresses, "HTTP_HOSTS", frozenset())
    for url in (server.url, "ftp://example.org/file.pth"):
        with pytest.raises(DownloadError, match=naming(url, "https://", "file://")):
            download_weights(dataclasses.replace(record, url=url), folder)
    assert server.requests == []


@pytest.mark.parametrize("target", ["http://example.org/file.pth", "file:///etc/passwd", "ftp://example.org/file.pth"])
def test_a_redirection_to_an_unsafe_address_is_not_followed(record, folder, server, target):
    server.script = [f"redirect {target}"]
    with pytest.raises(DownloadError, match=naming(target)):
        download_weights(record, folder)
    assert left_in(folder) == []


def test_a_redirection_to_a_safe_address_is_followed(record, folder, server):
    server.script = [f"redirect {server.url}?moved"]
    assert download_weights(record, folder).read_bytes() == server.content
    assert len(server.requests) == 2


def test_a_mirror_is_tried_where_the_first_address_cannot_be_reached_or_sends_something_else(record, folder, server):
    unreachable = dataclasses.replace(record, url="http://127.0.0.1:9/file.pth", mirrors=(server.url,))
    assert download_weights(unreachable, folder).read_bytes() == server.content
    (folder / record.file_name).unlink()
    digest = hashlib.sha256(server.content).hexdigest()
    trusted = dataclasses.replace(record, mirrors=(server.url,), sha256=digest, sha256_confirmed=True)
    server.script = ["wrong"]
    assert download_weights(trusted, folder).read_bytes() == server.content
    assert left_in(folder) == [record.file_name]


def test_a_machine_that_cannot_be_reached_is_asked_once(record, folder):
    url = "http://127.0.0.1:9/{}.pth"
    with pytest.raises(DownloadError) as caught:
        download_weights(dataclasses.replace(record, url=url.format(1), mirrors=(url.format(2),)), folder)
    assert str(caught.value).count("cannot be reached") == 1


def test_a_file_address_is_copied_and_checked(record, folder, tmp_path, server):
    original = tmp_path / "with space #1.pth"
    original.write_bytes(server.content)
    path = download_weights(record, folder, sources=[original.as_uri()])
    assert path.read_bytes() == server.content
    path.unlink()
    original.write_bytes(server.content[:-1])
    with pytest.raises(DownloadError, match=naming("with%20space", "256,003", "256,004")):
        download_weights(record, folder, sources=[original.as_uri()])
    assert left_in(folder) == []
    with pytest.raises(DownloadError, match="absent.pth"):
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
        with pytest.raises(DownloadError, match=naming(mirror, *facts)):
            mirror_urls(record, str(mirror))
    with pytest.raises(DownloadError, match=naming("http://a.org/w/", "https://")):
        mirror_urls(record, "http://a.org/w/")


def test_a_slow_server_is_waited_for(record, folder, server):
    server.script = ["slow"]
    assert download_weights(record, folder, timeout_s=5).read_bytes() == server.content
