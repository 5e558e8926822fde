"""Looking at a file on disk without reading it as a checkpoint: its hash, and what its first bytes say it is."""

import hashlib
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as lower-case hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def why_not_a_checkpoint(path: Path) -> str | None:
    """What the first bytes betray, as the end of the sentence "the file is ...", or None where they look right.

    A PyTorch checkpoint is a zip archive or, before PyTorch 1.6, a pickle of protocol 2 or later.
    """
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return "empty"
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return None
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")):
        return "a web page saved under this name (HTML), not the file behind its download link"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file it points to (run 'git lfs pull')"
    return f"not a PyTorch checkpoint (it starts with {head[:16]!r})"
