"""Matplotlib figures as SVG to put into a page: text stays text, nothing is loaded, and a description for those who
cannot see the picture."""

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

INK, MUTED, LINES = "#1a1a1a", "#5a5a5a", "#d9d9d9"
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "swin_umamba_nnunet",  # the same file from the same numbers
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # a label may hold a dollar sign
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": LINES,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
}

# Okabe and Ito's colours, told apart by people with any colour vision, light and dark in turn; marker, dashes and hatch
# carry the same information in a greyscale print.
_COLOURS = ("#1a1a1a", "#E69F00", "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CC79A7")
_MARKERS = "osD^vPX*"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)), (0, (9, 2)))
_HATCHES = ("", "///", "..", "\\\\\\", "xx", "---", "|||", "oo")


@dataclass(frozen=True)
class Style:
    """How one row looks in every chart."""

    colour: str
    marker: str
    dashes: Any
    hatch: str


def style_of(position: int) -> Style:
    """The style of the row at `position` (from 0); the periods differ, so that many rows differ too."""
    return Style(*(options[position % len(options)] for options in (_COLOURS, _MARKERS, _DASHES, _HATCHES)))


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """Matplotlib's settings while a figure is made and written."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def to_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an <svg> element.

    Args:
        figure: made within `settings`, and written within it.
        name: unique in the page, letters, digits and hyphens; every id in the picture begins with it.
        title, description: what the picture is, and what is to be seen in it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.05, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    head = f'<svg role="img" aria-labelledby="{name}-title {name}-desc" '
    texts = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    end = text.index(">")
    return head + text[len("<svg ") : end + 1] + texts + text[end + 1 :].strip()
