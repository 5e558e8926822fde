"""Pictures of image, ground truth, prediction and their differences, for one case or for many on a sheet.

    overview(imagesTs, labelsTs, predictions, Path("overview.png"), "my model")

Every number in them is Dice = 2 |A and B| / (|A| + |B|) of one class: of all voxels of the case, or of one slice where
it says so.  A class that is in neither mask has none, shown as a dash, and the means leave it out.

Figures are made without pyplot: no window system is touched and no state is shared between threads.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten, wrap
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from swin_umamba_nnunet._atomic import replacing
from swin_umamba_nnunet._text import printable
from swin_umamba_nnunet.evaluation import find_images, find_labels, labels_in, pair_cases
from swin_umamba_nnunet.pictures.drawing import (
    INK,
    OKABE_ITO,
    PANELS,
    Classes,
    draw_panel,
    kinds_of_error,
    legend_handles,
)
from swin_umamba_nnunet.pictures.looks import Look, View, read_look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Log = Mapping[str, Sequence[float]]  # what was logged, by epoch
CONVENTION = (
    "Dice = 2|A∩B| / (|A|+|B|), of all {elements} of the case{slices}; a class that is in neither mask has none (–) "
    "and is left out of means"
)

# Inches.  A panel is as large as its share of the page allows; text takes the rest.
_MARGIN, _GAP, _TITLE = 0.12, 0.08, 0.2
_LINE, _CHARACTERS_PER_INCH = 0.165, 14.5  # of text, 8 points
_NARROWEST = 6.0
_CASE_PANEL, _SHEET_PANEL = 3.0, 1.9  # side of a square panel
_CAPTION_WIDTH = 1.75
_CURVE = 2.8  # height of the training curve
_WIDE = 2.2  # width over height from which on the panels stand two by two


def overview(
    images: Path,
    truth: Path,
    predictions: Path,
    path: Path,
    title: str,
    *,
    log: Log | None = None,
    slices: Sequence[str] = ("median",),
) -> None:
    """Write one picture of all cases of a prediction folder, and of the training that led to them.

    Args:
        images: nnU-Net's imagesTs, or a folder of that kind.
        truth: folder of reference label files.
        predictions: folder that nnU-Net has predicted into.
        path: PNG to write, replaced as a whole.
        title: of the picture.
        log: "train_losses", "val_losses" and "mean_fg_dice" by epoch, as nnU-Net's checkpoints have them under
            "logging"; draws the training curve.
        slices: which of a volume, out of `SLICES`.

    Raises:
        EvaluationError: files are missing, unreadable or do not fit together.
        OSError: the picture cannot be written.
    """
    pairs = pair_cases(truth, predictions).cases
    files = find_images(images, [pair.name for pair in pairs])
    labels = find_labels(truth, predictions) or labels_in(pairs)
    looks = [read_look(pair, files[pair.name], labels, wanted=slices) for pair in pairs]
    draw_sheet(looks, labels.classes, path, title, log)


def draw_case(look: Look, classes: Classes, path: Path) -> None:
    """Write the picture of one case: a row per slice, below them the classes with their Dice (if there is a truth).

    Args:
        look: from `read_look`.
        classes: its classes; the order decides colours and line styles.
        path: PNG to write, replaced as a whole.

    Raises:
        OSError: it cannot be written.
    """
    scored = bool(look.dice)
    title = look.name + (f":  mean Dice {_number(look.mean_dice)} over classes" if scored and len(classes) > 1 else "")
    entries = [f"{name}  {_number(look.dice[name])}" if scored else name for name in classes]
    rows = [(view, _caption(view)) for view in look.views]
    _draw(rows, classes, title, entries, path, _CASE_PANEL, panels=PANELS if scored else ("image", "prediction"))


def draw_sheet(looks: Sequence[Look], classes: Classes, path: Path, title: str, log: Log | None = None) -> None:
    """Write one picture of many cases: a row per slice, its case and scores at the left.

    Args:
        looks: from `read_look`, in the order of the rows.
        classes: theirs.
        path: PNG to write, replaced as a whole.
        title: of the sheet.
        log: see `overview`.

    Raises:
        OSError: it cannot be written.
    """
    rows = [
        (view, [*wrap(look.name, 22), *_caption(view), *(_scores(look, classes) if i == 0 else [])])
        for look in looks
        for i, view in enumerate(look.views)
    ]
    _draw(rows, classes, title, list(classes), path, _SHEET_PANEL, log)


def _caption(view: View) -> list[str]:
    return [line for item in view.caption for line in wrap(item, 24)]


def _scores(look: Look, classes: Classes, most: int = 4) -> list[str]:
    """Mean Dice of a case, and the classes' own: all if few, else the worst."""
    if len(classes) == 1:
        return [f"case: Dice {_number(look.mean_dice)}"]
    lines, shown = [f"case: mean Dice {_number(look.mean_dice)}"], list(classes)
    if len(shown) > most:
        shown = sorted((name for name in shown if not math.isnan(look.dice[name])), key=look.dice.__getitem__)
        lines += ["worst:"] if len(shown) > most else []
    return lines + [f"{shorten(name, 18, placeholder='…')}  {_number(look.dice[name])}" for name in shown[:most]]


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _draw(
    rows: Sequence[tuple[View, Sequence[str]]],
    classes: Classes,
    title: str,
    entries: Sequence[str],
    path: Path,
    side: float,
    log: Log | None = None,
    panels: Sequence[str] = PANELS,
) -> None:
    """Lay out and write a page; all measures are inches from its upper left corner."""
    ratios = [view.truth.shape[1] / (view.truth.shape[0] * view.aspect) for view, _ in rows]
    columns = 2 if min(ratios) > _WIDE else len(panels)
    lines = len(panels) // columns  # of panels in a row of the page
    sizes = [_panel_size(ratio, side, columns) for ratio in ratios]
    heights = [max(lines * (size[1] + _TITLE), _TITLE + len(text) * _LINE) for size, (_, text) in zip(sizes, rows)]
    caption = _CAPTION_WIDTH if any(text for _, text in rows) else 0.0
    panel_width = max(width for width, _ in sizes)
    content = caption + columns * (panel_width + _GAP) - _GAP
    page_width = max(content + 2 * _MARGIN, _NARROWEST)
    sliced = any(view.caption for view, _ in rows)
    of_slice = "; of a slice: the mean over the classes in it" if sliced else ""
    said = CONVENTION.format(elements="voxels" if sliced else "pixels", slices=of_slice)
    scored = "differences" in panels
    convention = wrap(said, int(page_width * _CHARACTERS_PER_INCH * 8 / 7)) if scored else []
    errors = kinds_of_error([view for view, _ in rows], classes) if scored else []
    legend_columns, legend_height = _legend_size([*(f"99 {entry}" for entry in entries), *errors], page_width)
    top = _MARGIN + _TITLE + len(convention) * _LINE
    curve = _CURVE if log else 0.0
    page_height = top + sum(heights) + len(heights) * _GAP + legend_height + curve + _MARGIN

    figure = Figure(figsize=(page_width, page_height), facecolor="white")
    _write(figure, _MARGIN, _MARGIN, title[: int(page_width * _CHARACTERS_PER_INCH * 0.7)], fontsize=10, weight="bold")
    _write(figure, _MARGIN, _MARGIN + _TITLE, "\n".join(convention), fontsize=7, color="0.35", linespacing=1.3)
    left = _MARGIN if caption else (page_width - content) / 2
    for (view, text), (width, height), row_height in zip(rows, sizes, heights):
        _write(figure, _MARGIN, top + _TITLE, "\n".join(text), fontsize=8, linespacing=1.35)
        for i, name in enumerate(panels):
            x = left + caption + i % columns * (panel_width + _GAP) + (panel_width - width) / 2
            y = top + i // columns * (height + _TITLE) + _TITLE + height  # of the lower edge
            axes = figure.add_axes((x / page_width, 1 - y / page_height, width / page_width, height / page_height))
            draw_panel(axes, name, view, classes)
        top += row_height + _GAP
    handles = legend_handles(entries, errors)
    legend = figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, curve / page_height),
        ncols=legend_columns,
        fontsize=8,
        frameon=False,
        handlelength=3.2,
    )
    for written in legend.get_texts():
        written.set_parse_math(False)
    if log:
        _draw_curve(figure.add_axes((0.1, 0.5 / page_height, 0.8, (curve - 0.8) / page_height)), log)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a PNG, whole or not at all."""
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=dpi, format="png", pil_kwargs={"compress_level": 4})


def _draw_curve(axes: "Axes", log: Log) -> None:
    dice_axes, lines = axes.twinx(), []
    for one, key, label, colour, dashes in (
        (axes, "train_losses", "loss, training", INK, "-"),
        (axes, "val_losses", "loss, validation", INK, "--"),
        (dice_axes, "mean_fg_dice", "Dice on validation patches", OKABE_ITO["vermilion"], "-"),
    ):
        lines += one.plot(range(1, len(log[key]) + 1), log[key], color=colour, ls=dashes, label=label)
    axes.set(xlabel="epoch", ylabel="loss (Dice + cross-entropy)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dice_axes.set(ylabel="Dice", ylim=(0, 1))
    dice_axes.legend(handles=lines, loc="center right", fontsize=8)


def _panel_size(ratio: float, side: float, columns: int) -> tuple[float, float]:
    """Width and height of a panel of this width over height: of equal area, within bounds."""
    bound = 1.7 * side * (1 if columns == len(PANELS) else 1.4)
    width, height = side * math.sqrt(ratio), side / math.sqrt(ratio)
    scale = min(1.0, bound / width, bound / height)
    return max(width * scale, 0.3), max(height * scale, 0.3)


def _legend_size(labels: Sequence[str], width: float) -> tuple[int, float]:
    """Columns of the legend, and its height in inches."""
    columns = max(1, min(len(labels), int(width / (0.075 * max(map(len, labels)) + 0.75))))
    return columns, math.ceil(len(labels) / columns) * 0.17 + 0.22


def _write(figure: Figure, x: float, y: float, text: str, **settings) -> None:
    """Text with its upper left corner at (x, y) inches from the page's."""
    width, height = figure.get_size_inches()
    text = printable(text, lines=True)
    figure.text(x / width, 1 - y / height, text, ha="left", va="top", parse_math=False, **settings)
