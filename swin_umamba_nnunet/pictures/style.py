"""One palette and look for every picture and chart of this package.

Colours are Okabe and Ito's (jfly.uni-koeln.de/color), told apart by people with any colour vision; whatever they tell
apart differs in line style, number, marker or hatch too, so that a greyscale print loses nothing.
"""

from typing import Any, NamedTuple

OKABE_ITO = {
    "orange": "#E69F00",
    "blue": "#0072B2",
    "yellow": "#F0E442",
    "vermilion": "#D55E00",
    "sky blue": "#56B4E9",
    "green": "#009E73",
    "purple": "#CC79A7",
}
INK, MUTED, LINES = "#1a1a1a", "#5a5a5a", "#d9d9d9"  # of text and data, of axes, of grids

# 7 colours, light and dark in turn, and 4 line styles: 28 classes look different, and neighbours differ in both.
_COLOURS = tuple((OKABE_ITO | {"blue": "#2F86E0"}).values())  # the blue a little lighter: it lies on black
_DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
# None of the classes' colours; dark, light and medium, so that they differ in a greyscale print.
ERRORS = {"missed": "#D62839", "extra": "#A6FF00", "wrong class": "#FF33FF", "not scored": "#909090"}


class Style(NamedTuple):
    """How the outline of one class looks; `number` stands inside it."""

    colour: str
    dashes: Any
    number: str


def style_of(position: int, count: int) -> Style:
    """The style of the class at `position` (from 0) of `count`; a single one needs no number."""
    number = str(position + 1) if count > 1 else ""
    return Style(_COLOURS[position % len(_COLOURS)], _DASHES[position % len(_DASHES)], number)
