"""Looking at a file on disk without reading it as a checkpoint, or importing torch: its hash, and what it cannot be."""

import errno
import hashlib
import zipfile
from pathlib import Path

from swin_umamba_nnunet.pretrained.errors import CheckpointError

_CHUNK_BYTES = 1 << 20
_ZIP = b"PK\x03\x04"
_FOLDER = 0x10  # MS-DOS's attribute, in the zip directory


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as lower-case hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def require_checkpoint_file(path: Path) -> None:
    """Refuse what no reader needs to try: nothing there, a folder, a pipe, a page, an archive that unpacks to more.

    Raises:
        CheckpointError: it is that, or cannot be read; the message continues "PATH ...".
    """
    try:
        if not path.exists():
            raise CheckpointError("does not exist")
        if path.is_dir():
            raise CheckpointError("is a folder, not a checkpoint file")
        if not path.is_file():  # opening a pipe would wait for somebody to write to it
            raise CheckpointError("is a pipe or a device, not a checkpoint file")
        if (found := why_not_a_checkpoint(path) or _why_not_an_archive(path)) is not None:
            raise CheckpointError(f"is {found}")
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror})") from error


def is_of_the_file_system(error: Exception) -> bool:
    """Whether an error is one of reading; zipfile raises OSErrors of its own where a damaged offset leads nowhere."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def why_not_written(error: Exception) -> str:
    """In words what kept PyTorch from writing a file; its own message names a line of its sources."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "inline_container" in str(error) or "PytorchStreamWriter" in str(error):
        return "PyTorch could not write all of it, as happens where the disk is full"
    return (str(error).splitlines() or [type(error).__name__])[0]


def damage_in(archive: zipfile.ZipFile) -> str | None:
    """What PyTorch would read wrongly without a word: it compares no check sums, and gives memory as it finds it to a
    tensor whose entry a flipped bit has marked as a folder.  None where all is well; an archive that was unpacked and
    zipped again has entries of real folders, empty and called NAME/, which PyTorch passes over."""
    for entry in archive.infolist():
        if entry.external_attr & _FOLDER and (entry.file_size or not entry.filename.endswith("/")):
            return f"{entry.filename} is marked as a folder"
    wrong = archive.testzip()
    return None if wrong is None else f"the check sum of {wrong} is wrong"


def why_not_a_checkpoint(path: Path) -> str | None:
    """What the first bytes betray, as the end of the sentence "the file is ...", or None where they look right.

    A PyTorch checkpoint is a zip archive or, before PyTorch 1.6, a pickle of protocol 2 or later.
    """
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return "empty"
    if head.startswith((_ZIP, b"\x80")):
        return None
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")):
        return "a web page saved under this name (HTML), not the file behind its download link"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file it points to (run 'git lfs pull')"
    return f"not a PyTorch checkpoint (it starts with {head[:16]!r})"


def _why_not_an_archive(path: Path) -> str | None:
    """PyTorch stores tensors as they are: an archive of its own never unpacks to more bytes than it has."""
    with open(path, "rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            return None
    try:
        with zipfile.ZipFile(path) as archive:
            return _why_not_pytorchs(archive, path.stat().st_size)
    except Exception as error:  # damaged bytes raise whatever zipfile stumbles over
        if is_of_the_file_system(error):
            raise
        return "truncated or damaged: its zip directory says where nothing is, and PyTorch cannot read it"


def _why_not_pytorchs(archive: zipfile.ZipFile, size: int) -> str | None:
    entries = archive.infolist()
    compressed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if compressed:
        return f"a zip archive with compressed entries ({compressed[0]}), which PyTorch never writes; it is not read"
    declared = sum(entry.file_size for entry in entries)
    if declared > size:
        return f"a zip archive that declares {declared:,} bytes of content in a file of {size:,}; it is not read"
    damage = damage_in(archive)
    return None if damage is None else f"damaged ({damage})"
