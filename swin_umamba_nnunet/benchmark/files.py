"""JSON that is never half-written, hashes, the time, and what is raised about all of a benchmark."""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swin_umamba_nnunet._atomic import write_text


class MatrixError(Exception):
    """One sentence that says what was found, what was expected and what to do."""


class ConfigError(MatrixError):
    """Everything that is wrong with a configuration, found before anything runs.

    Attributes:
        problems: a sentence each.
        partial: the configuration without what is wrong about it, to look whether more is wrong; None if too little
            is left of it.
    """

    def __init__(self, problems: Sequence[str], partial: Any = None) -> None:
        self.partial = partial
        self.problems = tuple(dict.fromkeys(problems))
        count = "1 thing is" if len(self.problems) == 1 else f"{len(self.problems)} things are"
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{count} wrong with this benchmark; nothing was run.\n{lines}")


def write_json(path: Path, content: Any) -> None:
    """Write a file, complete or not at all, and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # JSON has no NaN: Python's spelling of it would be refused by browsers and other languages
    write_text(path, json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """What the file holds, None if there is none.

    Raises:
        MatrixError: it is there and is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise MatrixError(f"{path} is damaged ({error}); delete it to have it written anew") from error


def now() -> str:
    """The time with its offset from UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def sha256(path: Path) -> str | None:
    """Of the file's content; None if there is no such file."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except FileNotFoundError:
        return None
    return digest.hexdigest()


def json_sha256(path: Path) -> str | None:
    """Of what a JSON file says, whatever its white space and order of keys; None if there is no such file."""
    content = read_json(path)
    if content is None:
        return None
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _finite(content: Any) -> Any:
    """With null for NaN and the infinities, which nnU-Net's logs hold where a class was absent."""
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and (content != content or content in (float("inf"), float("-inf"))):
        return None
    return content
