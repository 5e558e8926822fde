"""What the matrix raises."""

from collections.abc import Sequence
from typing import Any


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
