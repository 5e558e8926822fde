"""What one check of `swin-umamba doctor` found."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Section:
    """Findings of one check.

    Attributes:
        key: under which they stand in the JSON report.
        data: the findings, for JSON.
        lines: the same for the screen.
        problems: what is wrong with the installation and what to do about it, a sentence each.
        missing: what a training still needs here, a sentence each; the installation is sound without.
    """

    key: str
    data: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def can_be_written(folder: Path) -> bool:
    """Whether a file can be made in a folder that may have to be made itself."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)
