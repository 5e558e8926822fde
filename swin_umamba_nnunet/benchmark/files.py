"""What all of a benchmark writes and raises: JSON that is never half-written, hashes, the time, and errors."""

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swin_umamba_nnunet import _atomic
from swin_umamba_nnunet._text import UserError, plural

Record = Mapping[str, Any]  # an object as JSON and TOML have it: settings, what is asked, answered and recorded


class BenchmarkError(UserError):
    """One sentence that says what was found, what was expected and what to do."""


class ConfigError(BenchmarkError):
    """Everything that is wrong with a configuration, found before anything runs.

    Attributes:
        problems: a sentence each.
        partial: the configuration without what is wrong about it, to look whether more is wrong; None if too little
            is left of it.
    """

    def __init__(self, problems: Sequence[str], partial: Any = None) -> None:
        self.partial, self.problems = partial, tuple(dict.fromkeys(problems))
        count = plural(len(self.problems), "thing") + (" is" if len(self.problems) == 1 else " are")
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{count} wrong with this benchmark; nothing was run.\n{lines}")


def write_json(path: Path, content: Any) -> None:
    """Write a file, complete or not at all, and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _atomic.write_json(path, plain(content))


def plain(value: Any) -> Any:
    """A value as JSON takes it: Python's own types for numpy's and torch's, and null for NaN and the infinities.

    nnU-Net's logs hold NaN where a class was absent; Python's spelling of it is no JSON, and other languages refuse it.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """What the file holds, None if there is none.

    Raises:
        BenchmarkError: it is there and is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{path} is damaged ({error}); delete it to have it written anew") from error


def now() -> str:
    """The time with its offset from UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def files_sha256(files: Mapping[str, Path]) -> str:
    """Of files by name, as they are."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + hashlib.sha256(files[name].read_bytes()).digest())
    return digest.hexdigest()


def json_sha256(path: Path) -> str | None:
    """Of what a JSON file says, whatever its white space and order of keys; None if there is no such file."""
    content = read_json(path)
    return None if content is None else hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
