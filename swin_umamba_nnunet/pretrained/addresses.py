"""Which addresses a checkpoint may be fetched from: https and files only, redirections included.

Most of the published files have no confirmed hash yet, so the way they come has to vouch for them.
"""

import urllib.parse
import urllib.request
from pathlib import Path

from swin_umamba_nnunet.pretrained.errors import DownloadError
from swin_umamba_nnunet.pretrained.registry import WeightsRecord

HTTP_HOSTS: frozenset[str] = frozenset()  # hosts that may be asked without encryption: none; tests add their own


class RefusedError(DownloadError):
    """What is at an address is not the file, or must not be fetched from there: another address may have it."""


def require_mirror(mirror: str) -> None:
    """Raise where nothing at all can come from a mirror that the user names, whatever is wanted of it.

    Raises:
        DownloadError: there is no such file or folder on this machine, or the address is of another kind.
    """
    if "://" in mirror:
        require_safe(mirror)
    elif not (path := Path(mirror).expanduser().absolute()).exists():
        raise DownloadError(f"the mirror {path} does not exist; expected a folder that holds the file, or the file")


def mirror_urls(record: WeightsRecord, mirror: str) -> list[str]:
    """Where a mirror that the user names may have a checkpoint.

    Args:
        record: what is wanted.
        mirror: a file, a folder, or an https or file address of either; a folder holds the file under one of its
            published names.

    Raises:
        DownloadError: there is no such file or folder on this machine, or the address is of another kind.
    """
    require_mirror(mirror)
    if "://" in mirror:
        if Path(urllib.parse.urlsplit(mirror).path).suffix in (".pth", ".pt", ".ckpt"):
            return [mirror]
        return [f"{mirror.rstrip('/')}/{urllib.parse.quote(name)}" for name in record.file_names]
    path = Path(mirror).expanduser().absolute()
    if path.is_file():
        return [path.as_uri()]
    found = [path / name for name in record.file_names if (path / name).is_file()]
    if not found:
        raise DownloadError(
            f"the mirror {path} has no {' or '.join(record.file_names)}; expected a folder that holds the file, or the "
            "file itself"
        )
    return [path.as_uri() for path in found]


def require_safe(url: str) -> None:
    """Raise RefusedError for an address of another kind than https and file."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("https", "file") and not (parts.scheme == "http" and parts.hostname in HTTP_HOSTS):
        raise RefusedError(
            f"{url} is not fetched: only https:// and file:// addresses are (no one vouches for what {parts.scheme}:// "
            "brings)"
        )


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to https only; urllib's own refuses files of this machine, but goes to http and ftp."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        require_safe(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener() -> urllib.request.OpenerDirector:
    """A fresh one: it reads the proxy variables as they are now, where urlopen keeps those of its first call."""
    return urllib.request.build_opener(_SafeRedirects)
