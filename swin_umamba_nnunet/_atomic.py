"""Files that are there complete or not at all: written beside their place, then renamed into it."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


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
