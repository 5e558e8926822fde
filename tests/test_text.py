"""What files and users name things, as it is shown to people and to spreadsheets."""

import csv
import io

import pytest

from swin_umamba_nnunet._text import (
    UserError,
    by,
    byte_size,
    csv_cell,
    did_you_mean,
    duration,
    from_csv_cell,
    listed,
    plural,
    printable,
    table,
)

HARMLESS = ("liver", "\u809d\u810f", "e\u0301", "\U0001f469\u200d\u2695\ufe0f", "a=b", "50 %", "")
FORMULAS = ("=1+1", "+1", "-1", "=cmd|' /C calc'!A0", "\t=1", "\r=1", "\uff1d1", "'=1", "''-")
ACTING = ("\x00", "\x07", "\x08", "\x1b[31m", "\x7f", "\x9b2J", "\r", "\u202e", "\u2066", "\u200f", "\u2028", "\ud800")


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_stays_as_it_is(text):
    assert printable(text) == printable(text, lines=True) == csv_cell(text) == from_csv_cell(text) == text


@pytest.mark.parametrize("acting", ACTING)
def test_what_acts_is_shown_instead(acting):
    for lines in (False, True):
        shown = printable(f"a{acting}b", lines)
        assert acting[0] not in shown
        assert shown.startswith("a\\")
        assert shown.isprintable()
    assert acting[0] not in csv_cell(f"a{acting}b")


def test_lines_stay_where_there_may_be_several():
    assert printable("a\n\tb", lines=True) == "a\n\tb"
    assert printable("a\n\tb") == "a\\n\\tb"


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_is_no_formula_and_reads_as_it_was(text):
    cell = csv_cell(text)
    assert cell[0] not in "=+-@\t\r\uff1d"
    if printable(text, lines=True) == text:
        assert from_csv_cell(cell) == text
    buffer = io.StringIO()
    csv.writer(buffer).writerow([cell])
    assert next(csv.reader(io.StringIO(buffer.getvalue()))) == [cell]


def test_errors_of_the_command_line_do_not_act_on_the_terminal():
    assert str(UserError("no case \x1b[2J\u202ex;\nexpected another")) == "no case \\x1b[2J\\u202ex;\nexpected another"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (plural(1, "case"), "1 case"),
        (plural(0, "case"), "0 cases"),
        (plural(2, "class"), "2 classes"),
        (duration(0.26), "0.3 s"),
        (duration(59.7), "1 min 00 s"),
        (duration(185), "3 min 05 s"),
        (duration(3599.6), "1 h 00 min"),
        (duration(90061), "25 h 01 min"),
        (byte_size(1), "0.0 MiB"),
        (byte_size(2**29), "512.0 MiB"),
        (byte_size(3 * 2**29), "1.50 GiB"),
        (by((64, 128.0)), "64 x 128.0"),
        (listed([]), ""),
        (listed("ab", most=2), "a, b"),
        (listed("abcd", most=2), "a, b and 2 more"),
        (did_you_mean("2D", ("3d", "2d")), "did you mean 2d?"),
        (did_you_mean("2D", ("2d",), before="; ")[:2], "; "),
        (did_you_mean("lung", ("2d",), before="; "), ""),
        (did_you_mean("any", ()), ""),
        (did_you_mean("aab", ("aa", "aax", "aabb"), most=3), "did you mean aabb, aa or aax?"),
        (did_you_mean("nnB", ("nnA", "nnBB"), key=lambda name: name[2:]), "did you mean nnBB?"),
        (table([("", "", "n"), ("abc", "", "10")], "<>"), ["        n", "abc    10"]),
        (table([("a", "bcd"), ("bcd", "")], between=" | "), ["a   | bcd", "bcd |"]),
        (table([]), []),
    ],
)
def test_what_all_rooms_write(said, expected):
    assert said == expected
