"""A dataset appears under its name only when it is complete.

It is written into a hidden folder beside its place and renamed at the end.  An old dataset that is to be replaced
stays until then, and survives under a hidden name if the computer dies between the two renames: the next run puts it
back.  One lock per dataset keeps two writers apart.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def new_dataset(raw_folder: Path, name: str, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write a dataset into; it becomes `raw_folder / name` when the block ends without an exception.

    Args:
        raw_folder: what nnU-Net calls nnUNet_raw; created if it does not exist.
        name: of the dataset's folder.
        overwrite: replace a dataset of that name; it stays as it is until the new one is complete.

    Raises:
        FileExistsError: the dataset is there already, or another process is writing it; it is left as it is.
        OSError: the folder cannot be written, or the disk is full; nothing is left behind.
    """
    target = raw_folder / name
    raw_folder.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        restore(target)
        if target.exists() and not overwrite:
            raise FileExistsError(f"{target} already exists; delete it to have the dataset written anew")
        unfinished = raw_folder / f".{name}.partial-{uuid.uuid4().hex[:8]}"
        unfinished.mkdir()
        try:
            yield unfinished
            _swap(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def restore(target: Path) -> None:
    """Clean up after runs that were killed: half datasets go, a dataset that was being replaced comes back.

    Only for the holder of the lock: nobody else may be writing.
    """
    replaced = sorted(target.parent.glob(f".{target.name}.replaced-*"))
    if replaced and not target.exists():
        os.replace(replaced.pop(), target)
    for left_over in (*replaced, *target.parent.glob(f".{target.name}.partial-*")):
        shutil.rmtree(left_over, ignore_errors=True)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    path = target.parent / f".{target.name}.lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileExistsError(f"another process is writing {target} at this moment; wait for it") from None
    try:
        yield
    finally:
        if os.name != "nt":  # Windows does not delete open files; there the empty lock file stays
            path.unlink(missing_ok=True)
        lock.release()


def _swap(unfinished: Path, target: Path) -> None:
    """Put a complete dataset in its place.  An old one goes only when the new one is there."""
    if not target.exists():
        os.replace(unfinished, target)
        return
    old = target.parent / f".{target.name}.replaced-{uuid.uuid4().hex[:8]}"
    os.replace(target, old)
    try:
        os.replace(unfinished, target)
    except BaseException:
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
