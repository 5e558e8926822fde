"""Drawing label maps on images: one look for every picture this package makes.

Classes are told apart by colour, by line style and by the number written into them, so a greyscale print and a
colour-blind reader lose nothing; a light fill shows which side of a line is inside.  The colours are Okabe and Ito's
(jfly.uni-koeln.de/color), light and dark in turn, the blue a little lighter; every line lies on a black one, so that it
shows on bright tissue too.

Figures are made without pyplot: no window system is touched and no state is shared between threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from scipy.ndimage import distance_transform_edt

from swin_umamba_nnunet._atomic import replacing
from swin_umamba_nnunet._text import printable
from swin_umamba_nnunet.evaluation.labels import mask_of
from swin_umamba_nnunet.pictures.views import Classes, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = ("image", "ground truth", "prediction", "differences")

# 7 colours and 4 line styles: 28 classes look different, and neighbours differ in both.
_COLOURS = ("#E69F00", "#2F86E0", "#F0E442", "#D55E00", "#56B4E9", "#009E73", "#CC79A7")
_DASHES: tuple[Any, ...] = ("solid", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
# None of the classes' colours; dark, light and medium, so that they differ in a greyscale print.
ERRORS = {"missed": "#D62839", "extra": "#A6FF00", "wrong class": "#FF33FF", "not scored": "#909090"}
_HALO = "black"
_FILL = 0.22  # opacity of a class within its outline: which side is inside, where an outline is the image's own edge


@dataclass(frozen=True)
class Style:
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
        _write_edges(axes, *view.edges)


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


def _draw_outlines(axes: "Axes", masks: Sequence[np.ndarray], width: float = 1.3) -> None:
    """The outline, a light fill and the number of each mask (H, W), over what the axes show already."""
    frame = axes.get_xlim(), axes.get_ylim()
    drawn = [(mask, style_of(i, len(masks))) for i, mask in enumerate(masks) if mask.any()]
    if drawn:
        fill = np.zeros((*drawn[0][0].shape, 4), np.float32)
        for mask, style in sorted(drawn, key=lambda item: -item[0].sum()):  # what is nested in it on top of a region
            fill[mask] = to_rgba(style.colour, _FILL)
        axes.imshow(fill, aspect=axes.get_aspect())
    for mask, style in drawn:
        _outline(axes, mask, style, width)
    for mask, style in drawn:  # on top of all lines
        if style.number:
            _number(axes, _own_part(mask, masks), style)
    axes.set(xlim=frame[0], ylim=frame[1])


def _outline(axes: "Axes", mask: np.ndarray, style: Style, width: float) -> None:
    first_row, last_row, first_column, last_column = _box(mask)
    inside = mask[first_row : last_row + 1, first_column : last_column + 1]
    framed = np.pad(inside.astype(np.float32), 1)  # a line along the image's edge too
    x, y = np.arange(first_column - 1, last_column + 2), np.arange(first_row - 1, last_row + 2)
    axes.contour(x, y, framed, levels=[0.5], colors=[_HALO], linewidths=width + 1.2, alpha=0.7)
    axes.contour(x, y, framed, levels=[0.5], colors=[style.colour], linewidths=width, linestyles=[style.dashes])


def _own_part(mask: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """What of a region no smaller one covers, so that the numbers of nested regions do not lie on each other."""
    size = mask.sum()
    smaller = [other for other in masks if other is not mask and other.sum() < size]
    own = mask & ~np.logical_or.reduce(smaller) if smaller else mask
    return own if own.any() else mask


def _number(axes: "Axes", mask: np.ndarray, style: Style) -> None:
    first_row, last_row, first_column, last_column = _box(mask)
    inside = mask[first_row : last_row + 1, first_column : last_column + 1]
    # the point farthest from the outline, which lies inside even where the centre of mass does not
    row, column = np.unravel_index(np.argmax(distance_transform_edt(np.pad(inside, 1))), np.add(inside.shape, 2))
    axes.text(
        first_column + column - 1, first_row + row - 1, style.number, color="white", fontsize=6, ha="center",
        va="center", clip_on=True, path_effects=[withStroke(linewidth=1.5, foreground=_HALO)], parse_math=False,
    )  # fmt: skip


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First and last row and column of the set pixels of a mask that has any."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def _write_edges(axes: "Axes", left: str, top: str) -> None:
    """Letters at the left and the top edge: the patient's sides."""
    for position, offset, letter, (across, up) in (
        ((0, 0.5), (4, 0), left, ("left", "center")),
        ((0.5, 1), (0, -3), top, ("center", "top")),
    ):
        axes.annotate(
            letter, position, offset, "axes fraction", "offset points", color="white", fontsize=7, ha=across, va=up,
            path_effects=[withStroke(linewidth=1.5, foreground=_HALO)],
        )  # fmt: skip


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a PNG, whole or not at all."""
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=dpi, format="png", pil_kwargs={"compress_level": 4})
