"""Files and folders that are there complete or not at all: written beside their place, then renamed into it."""

import contextlib
import errno
import glob
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

_NO_LOCKS = (None, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # None: of filelock's NotImplementedError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; what is there at the end takes the place of `path`, after an error nothing.

    Whoever reads meanwhile sees the old content or the new.  Two that write at the same time, on whatever machines,
    have names of their own: one of the two contents stays, whole.

    Raises:
        OSError: the folder is not there or may not be written.
    """
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):  # what went wrong before says more
            unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, see `replacing`.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, see `replacing`.

    With escapes for all that is not ASCII: nnU-Net reads such files in the encoding of whatever locale it runs in.

    Raises:
        OSError: it cannot be written.
    """
    write_text(path, json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def new_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder beside `path` to write into; it becomes `path` when the block ends without an exception.

    An old folder that is to be replaced stays until then, and survives under a hidden name if the computer dies between
    the two renames: the next run puts it back.  A lock keeps two writers of one folder apart.

    Args:
        path: of the folder; those above it are created.
        overwrite: replace a folder that is there; it stays as it is until the new one is complete.

    Raises:
        FileExistsError: the folder is there already, or another process is writing it; it is left as it is.
        OSError: the folder cannot be written, or the disk is full; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        _restore(path)
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} already exists; delete it to have it written anew")
        unfinished = _beside(path, "partial")
        unfinished.mkdir()
        try:
            yield unfinished
            if not path.exists():
                os.replace(unfinished, path)
                return
            old = _beside(path, "replaced")
            os.replace(path, old)
            try:
                os.replace(unfinished, path)
            except BaseException:
                os.replace(old, path)
                raise
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.{what}-{uuid.uuid4().hex[:8]}")


def _restore(path: Path) -> None:
    """Clean up after runs that were killed: half folders go, a folder that was being replaced comes back.

    Only for the holder of the lock: nobody else may be writing.
    """
    name = glob.escape(path.name)
    replaced = sorted(path.parent.glob(f".{name}.replaced-*"))
    if replaced and not path.exists():
        os.replace(replaced.pop(), path)
    for left_over in (*replaced, *path.parent.glob(f".{name}.partial-*")):
        shutil.rmtree(left_over, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout  # not where only a file is written

    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileExistsError(f"another process is writing {path} at this moment; wait for it") from None
    except (NotImplementedError, OSError) as error:
        if getattr(error, "errno", None) not in _NO_LOCKS:
            raise
        yield  # this file system has no locks; two that write one folder at a time are rarer than that
        return
    try:
        yield
    finally:
        if os.name != "nt":  # Windows does not delete open files; there the empty lock file stays
            file.unlink(missing_ok=True)
        lock.release()
