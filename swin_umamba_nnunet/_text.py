"""Text for people: names and messages made harmless to who reads them, and the one way to write what all rooms write.

plural(2, "case")                       2 cases
duration(185)                           3 min 05 s
byte_size(3 * 2**29)                    1.50 GiB
by((64, 128))                           64 x 128
listed(["a", "b", "c", "d"], most=2)    a, b and 2 more
did_you_mean("2D", ["2d", "3d"])        did you mean 2d?
table([("name", "size"), ("a", "12")], "<>")
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence

# Control characters (terminals obey them), ends of lines, halves of characters, and what turns the direction of the
# text that follows, so that a name reads as another.
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# What a spreadsheet takes for the beginning of a formula, in the wide forms of East Asian keyboards too.
_FORMULA = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


class UserError(Exception):
    """What the user can put right: one sentence (or a list) that says what was found and expected, and what to do.

    The rooms' own errors derive from it.  The command line prints it, and nothing else.

    Attributes:
        exit_code: of the command.
    """

    exit_code = 2

    def __init__(self, message: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return printable(super().__str__(), lines=True)


def printable(text: str, lines: bool = False) -> str:
    r"""Text in which whatever does something instead of showing is an escape, such as \x1b.

    Args:
        text: from a file, a folder's name, a log.
        lines: whether it may have several lines, and tabs in them.
    """

    def shown(found: re.Match[str]) -> str:
        return found[0] if lines and found[0] in "\n\t" else found[0].encode("unicode_escape").decode("ascii")

    return _ACTING.sub(shown, text)


def csv_cell(text: str) -> str:
    """Text as a cell of a CSV file: printable, and with a ' before what a spreadsheet would compute."""
    text = printable(text, lines=True)
    return f"'{text}" if text.lstrip("'")[:1] in _FORMULA else text


def from_csv_cell(cell: str) -> str:
    """The text that `csv_cell` has made the cell from, as far as it was printable."""
    return cell[1:] if cell[:1] == "'" and cell.lstrip("'")[:1] in _FORMULA else cell


def plural(count: int, word: str) -> str:
    """A number of things: 1 case, 2 cases, 2 classes."""
    return f"{count} {word}" + ("" if count == 1 else "es" if word.endswith("s") else "s")


def duration(seconds: float) -> str:
    """A time that something takes: 2 h 05 min, 3 min 05 s, 4.2 s."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def byte_size(count: float) -> str:
    """Memory, or a file: 1.50 GiB, 20.3 MiB, 0.2 MiB."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def by(sizes: Iterable[object]) -> str:
    """Sizes by axis: 64 x 64 x 32."""
    return " x ".join(map(str, sizes))


def listed(things: Iterable[object], most: int = 5) -> str:
    """The first of many, and how many there are besides: a, b and 3 more."""
    words = list(map(str, things))
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more} more" if more > 0 else "")


def did_you_mean(
    name: str, known: Iterable[str], *, before: str = "", most: int = 1, key: Callable[[str], str] = str.lower
) -> str:
    """A question for somebody who has written a name that nothing has; "" where no name is like it.

    Args:
        name: as written.
        known: the names there are.
        before: what to begin with where there is a question, such as "; ".
        most: names to ask about.
        key: what of a name to compare.
    """
    by_key = {key(each): each for each in known}
    close = [by_key[found] for found in difflib.get_close_matches(key(name), by_key, n=most)]
    return f"{before}did you mean {', '.join(close[:-1])}{' or ' * (len(close) > 1)}{close[-1]}?" if close else ""


def table(rows: Iterable[Sequence[str]], align: str = "<", between: str = "  ") -> list[str]:
    """Rows of words, the head among them, as lines whose columns stand below each other.

    Args:
        rows: of the same number of columns.
        align: "<" or ">" for each column, left or right; the last goes for all that follow.
        between: what stands between two columns.
    """
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows)]
    sides = align.ljust(len(widths), align[-1])
    return [between.join(f"{word:{s}{w}}" for word, s, w in zip(row, sides, widths)).rstrip() for row in rows]
