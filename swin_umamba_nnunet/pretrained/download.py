"""Fetching a checkpoint into a folder: progress, resumption, checks, an atomic rename, one process at a time.

`torch.hub.download_url_to_file` has neither a timeout nor resumption nor a lock, and compares no sizes; the Hugging
Face client has them for its own hub only.  So the transfer is urllib's (which respects the proxy variables) and the
lock filelock's.

While it runs, a download lies in FILE.partial, with the server's ETag in FILE.partial.etag.  A later call asks for the
rest with `Range` and `If-Range`: a server that has another file by then, or cannot resume, sends all of it.  The final
name only ever holds a file that passed every check.

Only https and file addresses are fetched from, redirections included: most of the published files have no confirmed
hash yet, so the way they come has to vouch for them.
"""

import contextlib
import dataclasses
import http.client
import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from tqdm import tqdm

from swin_umamba_nnunet.pretrained.registry import CheckpointError, DownloadError, WeightsRecord

if TYPE_CHECKING:
    from swin_umamba_nnunet.pretrained.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

HTTP_HOSTS: frozenset[str] = frozenset()  # hosts that may be asked without encryption: none; tests add their own
SUFFIXES = (".pth", ".pt", ".ckpt")  # of files; an address that ends otherwise is a folder's
_CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 15.0  # for connecting and for each read: how long a silent server is waited for
_LOCK_TIMEOUT_S = 3600.0
_RESUMPTIONS = 5  # within one call, and only after an attempt that brought bytes


class RefusedError(DownloadError):
    """What is at an address is not the file, or must not be fetched from there: another address may have it."""


class _Unreachable(DownloadError):
    """Nobody answered: an address on another machine may."""


class _BrokenOff(DownloadError):
    """The connection ended early: what has arrived can be resumed."""


# ---------------------------------------------------------------------------------------------------------- addresses


def require_mirror(mirror: str) -> Path | None:
    """The path of a mirror that the user names, None if it is an address.

    Raises:
        DownloadError: nothing at all can come from it, whatever is wanted: there is no such file or folder on this
            machine, or the address is of another kind.
    """
    if "://" in mirror:
        _require_safe(mirror)
        return None
    if not (path := Path(mirror).expanduser().absolute()).exists():
        raise DownloadError(f"the mirror {path} does not exist; expected a folder that holds the file, or the file")
    return path


def mirror_urls(record: WeightsRecord, mirror: str) -> list[str]:
    """Where a mirror that the user names may have a checkpoint.

    Args:
        record: what is wanted.
        mirror: a file, a folder, or an https or file address of either; a folder holds the file under one of its
            published names.

    Raises:
        DownloadError: there is no such file or folder on this machine, or the address is of another kind.
    """
    if (path := require_mirror(mirror)) is None:
        if urllib.parse.urlsplit(mirror).path.endswith(SUFFIXES):
            return [mirror]
        return [f"{mirror.rstrip('/')}/{urllib.parse.quote(name)}" for name in record.file_names]
    found = [each for each in (path, *(path / name for name in record.file_names)) if each.is_file()]
    if not found:
        raise DownloadError(
            f"the mirror {path} has no {' or '.join(record.file_names)}; expected a folder that holds the file, or the "
            "file itself"
        )
    return [each.as_uri() for each in found]


def _require_safe(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("https", "file") and not (parts.scheme == "http" and parts.hostname in HTTP_HOSTS):
        raise RefusedError(
            f"{url} is not fetched: only https:// and file:// addresses are (no one vouches for what {parts.scheme}:// "
            "brings)"
        )


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to https only; urllib's own refuses files of this machine, but goes to http and ftp."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _require_safe(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


# ----------------------------------------------------------------------------------------------------------- transfer


def download_weights(record: WeightsRecord, folder: Path, *, sources: Sequence[str] = ()) -> "Checkpoint":
    """Fetch a checkpoint into `folder` under its own name unless it is there already, and read it.

    Args:
        record: what to fetch.
        folder: made if missing.
        sources: addresses to try instead of the record's, see `mirror_urls`.

    Returns:
        The complete file of that name as it was read, which is the published one as far as that is known.

    Raises:
        DownloadError: the folder cannot be written, the server cannot be reached or breaks off, or what came is not the
            file; nothing is left under its name.
        CheckpointError: a file of that name was there and is not the published one.
    """
    folder = folder.expanduser().absolute()
    target = folder / record.file_name
    try:
        if not target.is_file():  # else complete, since it gets its name last; its folder may be shared and read-only
            folder.mkdir(parents=True, exist_ok=True)
            with _lock(target):
                if not target.is_file():
                    return _download(record, target, sources or record.urls)
    except OSError as error:
        raise DownloadError(
            f"cannot write to {folder} ({error}); make room, or name another folder in XDG_CACHE_HOME"
        ) from error
    return _read_as_published(record, target)


def _lock(target: Path):
    """Take FILE.lock, so that of several processes one fetches and the others find the file; a context."""
    lock = FileLock(f"{target}.lock")
    with contextlib.suppress(Timeout):
        return lock.acquire(timeout=0)
    logger.info("Another process is fetching %s; waiting for it.", target.name)
    try:
        return lock.acquire(timeout=_LOCK_TIMEOUT_S)
    except Timeout as error:
        raise DownloadError(
            f"another process has held {lock.lock_file} for {_LOCK_TIMEOUT_S:.0f} s; end it and try again"
        ) from error


def _download(record: WeightsRecord, target: Path, urls: Sequence[str]) -> "Checkpoint":
    partial = target.with_name(target.name + ".partial")
    causes: list[str] = []
    unreachable: set[str] = set()
    for url in urls:
        host = urllib.parse.urlsplit(url).netloc
        if host and host in unreachable:
            continue
        try:
            _fetch(url, partial, record.size_bytes)
            checkpoint = _read_as_published(record, partial)
        except CheckpointError as error:
            _discard(partial)  # resuming wrong bytes would only repeat the error
            causes.append(f"{url} sent something else than {record.title}: {error}")
        except (RefusedError, _Unreachable) as error:
            causes.append(str(error))
            unreachable |= {host} if isinstance(error, _Unreachable) else set()
        else:
            os.replace(partial, target)
            _etag_file(partial).unlink(missing_ok=True)
            logger.info("Saved %s.", target)
            return dataclasses.replace(checkpoint, path=target)
    raise DownloadError("; ".join(causes))


def _read_as_published(record: WeightsRecord, path: Path) -> "Checkpoint":
    from swin_umamba_nnunet.pretrained.checkpoint import read_checkpoint  # imports torch

    return read_checkpoint(path, record, name=record.file_name)


def _fetch(url: str, partial: Path, size_bytes: int | None) -> None:
    """Bring `partial` to its full length, resuming where the connection breaks off."""
    for remaining in reversed(range(_RESUMPTIONS + 1)):
        before = _size(partial)
        try:
            _fetch_once(url, partial, size_bytes)
            return
        except _BrokenOff as error:
            if remaining == 0 or _size(partial) <= before:
                raise
            logger.warning("%s; resuming.", error)


def _fetch_once(url: str, partial: Path, size_bytes: int | None) -> None:
    with _open(url, partial) as response:
        start, length = 0, response.headers.get("Content-Length", "")
        if response.status == 206:  # else the server sends everything
            start = _size(partial)
            if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                _discard(partial)
                raise RefusedError(f"{response.url} was asked for the bytes from {start} and sent others")
        total = start + int(length) if length.isdigit() else None
        if response.headers.get_content_type() == "text/html":
            raise RefusedError(f"{url} answered with a web page instead of the file (a proxy's or a login page?)")
        if None not in (size_bytes, total) and size_bytes != total:
            raise RefusedError(f"{url} offers {total:,} bytes, expected {size_bytes:,}")
        if start == 0:
            _discard(partial)
            etag = response.headers.get("ETag", "")
            if etag.startswith('"'):  # a weak one cannot vouch for single bytes
                _etag_file(partial).write_text(etag)
        logger.info("Downloading %s%s.", url, f" from byte {start:,}" if start else "")
        with (
            open(partial, "ab") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=partial.stem, disable=None) as progress,
        ):
            while chunk := _read(response, url):
                file.write(chunk)
                progress.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and _size(partial) != total:
        raise _BrokenOff(f"{url} broke off after {_size(partial):,} of {total:,} bytes")


def _open(url: str, partial: Path):
    headers = {"User-Agent": "swin_umamba_nnunet", "Accept-Encoding": "identity"}
    _require_safe(url)
    start, etag_file = _size(partial), _etag_file(partial)
    if start and etag_file.is_file():
        headers |= {"Range": f"bytes={start}-", "If-Range": etag_file.read_text()}
    # a fresh opener: it reads the proxy variables as they are now, where urlopen keeps those of its first call
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and "Range" in headers:  # nothing beyond `start`: not the file we began
            _discard(partial)
            return _open(url, partial)
        raise RefusedError(f"{url} answered with HTTP status {error.code} ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Unreachable(f"{url} cannot be reached ({getattr(error, 'reason', error)})") from error


def _read(response, url: str) -> bytes:
    try:
        return response.read1(_CHUNK_BYTES)  # what has arrived: a timeout must not cost what came before it
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOff(f"{url} broke off ({error})") from error


def _etag_file(partial: Path) -> Path:
    return partial.with_name(partial.name + ".etag")


def _discard(partial: Path) -> None:
    _etag_file(partial).unlink(missing_ok=True)  # first: an ETag must never outlive the bytes it vouches for
    partial.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
