"""Fetching a checkpoint into a folder: progress, resumption, checks, an atomic rename, one process at a time.

`torch.hub.download_url_to_file` has neither a timeout nor resumption nor a lock, and compares no sizes; the Hugging
Face client has them for its own hub only.  So the transfer is urllib's (which respects the proxy variables) and the
lock filelock's.

While it runs, a download lies in FILE.partial, with the server's ETag in FILE.partial.etag.  A later call asks for the
rest with `Range` and `If-Range`: a server that has another file by then, or cannot resume, sends all of it.  The final
name only ever holds a file that passed every check.
"""

import contextlib
import http.client
import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from swin_umamba_nnunet.pretrained.addresses import RefusedError, opener, require_safe
from swin_umamba_nnunet.pretrained.errors import CheckpointError, DownloadError
from swin_umamba_nnunet.pretrained.files import sha256_of, why_not_a_checkpoint
from swin_umamba_nnunet.pretrained.registry import WeightsRecord

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 15.0  # for connecting and for each read: how long a silent server is waited for
_LOCK_TIMEOUT_S = 3600.0
_RESUMPTIONS = 5  # within one call, and only after an attempt that brought bytes


class _Unreachable(DownloadError):
    """Nobody answered: an address on another machine may."""


class _BrokenOff(DownloadError):
    """The connection ended early: what has arrived can be resumed."""


def download_weights(
    record: WeightsRecord,
    folder: Path,
    *,
    sources: Sequence[str] = (),
    check: Callable[[Path], object] | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> Path:
    """Fetch a checkpoint into `folder` under its own name, or return it if it is there already.

    Args:
        record: what to fetch, and its size and hash as far as known.
        folder: made if missing.
        sources: addresses to try instead of the record's, see `addresses.mirror_urls`.
        check: called with the complete file before it gets its name; raises CheckpointError to refuse it.
        timeout_s: how long a server that sends nothing is waited for.

    Returns:
        Path of the complete, checked file.

    Raises:
        DownloadError: the folder cannot be written, the server cannot be reached or breaks off, or what came is not the
            file (size, confirmed hash, or `check`).
    """
    target = folder / record.file_name
    if target.is_file():  # complete, since it gets its name last; its folder may be shared and read-only
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(target):
            if target.is_file():
                return target
            return _download(record, target, sources or record.urls, check, timeout_s)
    except OSError as error:
        raise DownloadError(f"cannot write to {folder}: {error}") from error


@contextlib.contextmanager
def _lock(target: Path):
    """Hold FILE.lock, so that of several processes one fetches and the others find the file."""
    lock = FileLock(f"{target}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("Another process is fetching %s; waiting for it.", target.name)
        try:
            lock.acquire(timeout=_LOCK_TIMEOUT_S)
        except Timeout as error:
            raise DownloadError(
                f"another process has held {lock.lock_file} for {_LOCK_TIMEOUT_S:.0f} s; end it and try again"
            ) from error
    try:
        yield
    finally:
        lock.release()


def _download(record: WeightsRecord, target: Path, urls: Sequence[str], check, timeout_s: float) -> Path:
    partial = target.with_name(target.name + ".partial")
    causes: list[str] = []
    unreachable: set[str] = set()
    for url in urls:
        host = urllib.parse.urlsplit(url).netloc
        if host and host in unreachable:
            continue
        try:
            _fetch(url, partial, record.size_bytes, timeout_s)
            _check(record, partial, url, check)
            break
        except RefusedError as error:
            causes.append(str(error))
        except _Unreachable as error:
            causes.append(str(error))
            unreachable.add(host)
    else:
        raise DownloadError("; ".join(causes))
    os.replace(partial, target)
    _etag_file(partial).unlink(missing_ok=True)
    logger.info("Saved %s.", target)
    return target


def _fetch(url: str, partial: Path, size_bytes: int | None, timeout_s: float) -> None:
    """Bring `partial` to its full length, resuming where the connection breaks off."""
    for remaining in reversed(range(_RESUMPTIONS + 1)):
        before = _size(partial)
        try:
            _fetch_once(url, partial, size_bytes, timeout_s)
            return
        except _BrokenOff as error:
            if remaining == 0 or _size(partial) <= before:
                raise
            logger.warning("%s; resuming.", error)


def _fetch_once(url: str, partial: Path, size_bytes: int | None, timeout_s: float) -> None:
    with _open(url, partial, timeout_s) as response:
        start = _start_of(response, partial)
        total = _total_of(response, start)
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


def _open(url: str, partial: Path, timeout_s: float):
    headers = {"User-Agent": "swin_umamba_nnunet", "Accept-Encoding": "identity"}
    require_safe(url)
    start, etag_file = _size(partial), _etag_file(partial)
    if start and etag_file.is_file():
        headers |= {"Range": f"bytes={start}-", "If-Range": etag_file.read_text()}
    try:
        return opener().open(urllib.request.Request(url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and "Range" in headers:  # nothing beyond `start`: not the file we began
            _discard(partial)
            return _open(url, partial, timeout_s)
        raise RefusedError(f"{url} answered with HTTP status {error.code} ({error.reason})") from error
    except urllib.error.URLError as error:
        raise _Unreachable(f"{url} cannot be reached ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Unreachable(f"{url} cannot be reached ({error})") from error


def _read(response, url: str) -> bytes:
    try:
        return response.read1(_CHUNK_BYTES)  # what has arrived: a timeout must not cost what came before it
    except TimeoutError as error:
        raise _BrokenOff(f"{url} stopped sending") from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOff(f"{url} broke off ({error})") from error


def _start_of(response, partial: Path) -> int:
    """The byte the answer starts at: where `partial` ends, or 0 where the server sends everything."""
    if response.status != 206:
        return 0
    start = _size(partial)
    if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        _discard(partial)
        raise RefusedError(f"{response.url} was asked for the bytes from {start} and sent others")
    return start


def _total_of(response, start: int) -> int | None:
    length = response.headers.get("Content-Length")
    return start + int(length) if length and length.isdigit() else None


def _check(record: WeightsRecord, partial: Path, url: str, check) -> None:
    try:
        if (found := why_not_a_checkpoint(partial)) is not None:
            raise RefusedError(f"what {url} sent is {found}")
        if record.size_bytes not in (None, size := _size(partial)):
            raise RefusedError(f"{url} sent {size:,} bytes, expected {record.size_bytes:,}")
        digest = sha256_of(partial)
        if record.sha256_confirmed and digest != record.sha256:
            raise RefusedError(f"{url} sent a file with sha256 {digest}, expected {record.sha256}")
        if check is not None:
            check(partial)
    except CheckpointError as error:
        _discard(partial)
        raise RefusedError(f"{url} sent something else than {record.title}: {error}") from error
    except RefusedError:
        _discard(partial)  # resuming wrong bytes would only repeat the error
        raise
    logger.info("sha256 of the downloaded %s: %s (%s).", record.file_name, digest, hash_verdict(record, digest))


def hash_verdict(record: WeightsRecord, digest: str) -> str:
    """How a computed hash compares with the registry's, in a few words for the log."""
    if record.sha256 is None:
        return "the registry has none to compare with"
    trust = "confirmed" if record.sha256_confirmed else "not confirmed"
    return f"{'equal to' if digest == record.sha256 else 'different from'} the registry's, which is {trust}"


def _etag_file(partial: Path) -> Path:
    return partial.with_name(partial.name + ".etag")


def _discard(partial: Path) -> None:
    _etag_file(partial).unlink(missing_ok=True)  # first: an ETag must never outlive the bytes it vouches for
    partial.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
