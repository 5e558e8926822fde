"""Drawing label maps on images.

Classes are told apart by colour, by line style and by the number written into them; a light fill shows which side of a
line is inside, and every line lies on a black one, so that it shows on bright tissue too.

Palette and look are those of every picture and chart of this package.  Colours are Okabe and Ito's
(jfly.uni-koeln.de/color), told apart by people with any colour vision; whatever they tell apart differs in line style,
number, marker or hatch too, so that a greyscale print loses nothing.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from scipy.ndimage import distance_transform_edt

from swin_umamba_nnunet._text import printable
from swin_umamba_nnunet.evaluation.labels import mask_of
from swin_umamba_nnunet.evaluation.surfaces import union_box
from swin_umamba_nnunet.pictures.looks import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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

Classes = Mapping[str, Sequence[int]]  # name -> the labels that make it up: several for nnU-Net's regions
PANELS = ("image", "ground truth", "prediction", "differences")

_HALO = "black"
_LETTERS: dict[str, Any] = {"color": "white", "path_effects": [withStroke(linewidth=1.5, foreground=_HALO)]}
_WIDTH = 1.3  # of outlines, points
_FILL = 0.22  # opacity of a class within its outline: which side is inside, where an outline is the image's own edge


class Style(NamedTuple):
    """How the outline of one class looks; `number` stands inside it."""

    colour: str
    dashes: Any
    number: str


def style_of(position: int, count: int) -> Style:
    """The style of the class at `position` (from 0) of `count`; a single one needs no number."""
    number = str(position + 1) if count > 1 else ""
    return Style(_COLOURS[position % len(_COLOURS)], _DASHES[position % len(_DASHES)], number)


def draw_panel(axes: "Axes", name: str, view: View, classes: Classes) -> None:
    """One of `PANELS`, with its name above: the image, and on it what the panel shows.

    Args:
        axes: to draw in; they lose their frame and get the pixels' proportions.
        name: out of `PANELS`.
        view: what is drawn.
        classes: the order decides colours, line styles and numbers.
    """
    axes.set_title(name, fontsize=8, pad=2)
    axes.imshow(view.image, cmap="gray", vmin=0, vmax=1, aspect=view.aspect)
    axes.set_axis_off()
    if name == "differences":
        for kind, mask in _differences(view, classes).items():
            if mask.any():
                axes.imshow(mask[..., None] * np.array(to_rgba(ERRORS[kind], 0.85)), aspect=view.aspect)
    elif name != "image":
        labels = view.truth if name == "ground truth" else view.prediction
        _draw_outlines(axes, [mask_of(labels, values) for values in classes.values()])
    elif view.edges:
        left, top = view.edges  # letters at the edges: the patient's sides
        for place, offset, letter, (across, up) in (
            ((0, 0.5), (4, 0), left, ("left", "center")),
            ((0.5, 1), (0, -3), top, ("center", "top")),
        ):
            axes.annotate(
                letter, place, offset, "axes fraction", "offset points", fontsize=7, ha=across, va=up, **_LETTERS
            )


def legend_handles(entries: Sequence[str], errors: Sequence[str]) -> list[Any]:
    """What stands in the legend: a line per class (`entries`, in the order of the classes) and a patch per error."""
    halo = [withStroke(linewidth=3.2, foreground=_HALO)]  # yellow on white paper
    lines = []
    for i, entry in enumerate(entries):
        style = style_of(i, len(entries))
        label = printable(f"{style.number}  {entry}" if style.number else f" {entry}")  # matplotlib leaves out "_name"
        lines.append(Line2D([], [], color=style.colour, ls=style.dashes, lw=2, label=label, path_effects=halo))
    return [*lines, *(Patch(facecolor=ERRORS[name], edgecolor="black", label=name) for name in errors)]


def kinds_of_error(views: Sequence[View], classes: Classes) -> list[str]:
    """The keys of `ERRORS` that can occur in these views."""
    absent = set() if len(classes) > 1 else {"wrong class"}
    if not any(view.ignored.any() for view in views):
        absent.add("not scored")
    return [name for name in ERRORS if name not in absent]


def _differences(view: View, classes: Classes) -> dict[str, np.ndarray]:
    """Masks (H, W) of the pixels that are wrong, by kind; the keys are those of `ERRORS`."""
    masks = [(mask_of(view.truth, values), mask_of(view.prediction, values)) for values in classes.values()]
    truth, prediction = (np.logical_or.reduce(each) for each in zip(*masks))
    differ = np.logical_or.reduce([one != other for one, other in masks])  # labels of one region are one class
    return {
        "missed": truth & ~prediction,
        "extra": prediction & ~truth,
        "wrong class": truth & prediction & differ,
        "not scored": view.ignored,
    }


def _draw_outlines(axes: "Axes", masks: Sequence[np.ndarray]) -> None:
    """The outline, a light fill and the number of each mask (H, W), over what the axes show already."""
    frame = axes.get_xlim(), axes.get_ylim()
    drawn = [(mask, style_of(i, len(masks))) for i, mask in enumerate(masks) if mask.any()]
    if drawn:
        fill = np.zeros((*drawn[0][0].shape, 4), np.float32)
        for mask, style in sorted(drawn, key=lambda item: -item[0].sum()):  # what is nested in it on top of a region
            fill[mask] = to_rgba(style.colour, _FILL)
        axes.imshow(fill, aspect=axes.get_aspect())
    for mask, style in drawn:
        _outline(axes, mask, style)
    for mask, style in drawn:  # on top of all lines
        if style.number:
            _number(axes, _own_part(mask, masks), style.number)
    axes.set(xlim=frame[0], ylim=frame[1])


def _outline(axes: "Axes", mask: np.ndarray, style: Style) -> None:
    rows, columns = union_box(mask, mask)
    framed = np.pad(mask[rows, columns].astype(np.float32), 1)  # a line along the image's edge too
    y, x = (np.arange(axis.start - 1, axis.stop + 1) for axis in (rows, columns))
    axes.contour(x, y, framed, levels=[0.5], colors=[_HALO], linewidths=_WIDTH + 1.2, alpha=0.7)
    axes.contour(x, y, framed, levels=[0.5], colors=[style.colour], linewidths=_WIDTH, linestyles=[style.dashes])


def _own_part(mask: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """What of a region no smaller one covers, so that the numbers of nested regions do not lie on each other."""
    size = mask.sum()
    own = mask.copy()
    for other in masks:
        if other.sum() < size:
            own &= ~other
    return own if own.any() else mask


def _number(axes: "Axes", mask: np.ndarray, number: str) -> None:
    rows, columns = union_box(mask, mask)
    # the point farthest from the outline, which lies inside even where the centre of mass does not
    distance = distance_transform_edt(np.pad(mask[rows, columns], 1))
    row, column = np.unravel_index(np.argmax(distance), distance.shape)
    place = columns.start + column - 1, rows.start + row - 1
    axes.text(*place, number, fontsize=6, ha="center", va="center", clip_on=True, parse_math=False, **_LETTERS)
