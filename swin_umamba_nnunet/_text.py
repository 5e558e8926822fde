"""Names and messages from files and users, harmless to who reads them: people at a screen, and spreadsheets."""

import re

# Control characters (terminals obey them), ends of lines, halves of characters, and what turns the direction of the
# text that follows, so that a name reads as another.
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# What a spreadsheet takes for the beginning of a formula, in the wide forms of East Asian keyboards too.
_FORMULA = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


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
