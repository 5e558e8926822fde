"""What one check of `swin-umamba doctor` found."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Section:
    """Findings of one check.

    Attributes:
        key: under which they stand in the JSON report.
        data: the findings, for JSON.
        lines: the same for the screen.
        problems: what is wrong and what to do about it, a sentence each; what is merely absent is none.
    """

    key: str
    data: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
