"""The charts of an arena as SVG to put into a page.  Every number in them is in a table of the report or its CSV files.

Text stays text, nothing is loaded, each has a description for those who cannot see it, and the page's own colours stand
for ink and paper, so that it is light or dark as the page is.
"""

import io
import math
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from swin_umamba_nnunet.benchmark.report.analysis import Result
from swin_umamba_nnunet.benchmark.report.collect import Arena
from swin_umamba_nnunet.benchmark.report.words import direction, in_unit, interval, lost, number
from swin_umamba_nnunet.pictures.drawing import INK, LINES, MUTED, OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 4.6  # inches, at 72 to the inch: a little less than a phone is wide, so that letters keep their size there
_QUARTILES_FROM = 5  # cases, below which they say nothing
_ROW, _FRAME = 0.46, 0.62  # height of a row of a chart, and of what is around them
PAGE = "#ffffff"
# What a colour of the charts is called in the page, which has a light and a dark form of it.
_OF_PAGE = {INK: "ink", MUTED: "muted", LINES: "line", PAGE: "page", OKABE_ITO["blue"].lower(): "blue"}
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
}

# Okabe and Ito's colours, told apart by people with any colour vision, light and dark in turn; marker and dashes
# carry the same information in a greyscale print.
_COLOURS = (INK, *(OKABE_ITO[name] for name in ("orange", "blue", "sky blue", "vermilion", "green", "purple")))
_MARKERS = "osD^vPX*"
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)), (0, (9, 2)))
_LOOKS: tuple[Any, ...] = (_COLOURS, _MARKERS, _DASHES)


class Style(NamedTuple):
    """How one row looks in every chart."""

    colour: str
    marker: str
    dashes: Any
    hollow: bool = False


_HUMAN = Style(MUTED, "o", (0, (1, 2)), hollow=True)  # and without a colour: no competitor


def settings() -> Any:
    """Matplotlib's settings while a figure is made and written."""
    return matplotlib.rc_context(_SETTINGS)


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
    text = re.sub(r'\bid="|href="#|url\(#', rf"\g<0>{name}-", text)
    for colour, variable in _OF_PAGE.items():
        text = text.replace(colour, f"var(--{variable})")
    head = f'<svg role="img" aria-labelledby="{name}-title {name}-desc" '
    texts = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    end = text.index(">")
    return head + text[len("<svg ") : end + 1] + texts + text[end + 1 :].strip()


def charts_of(result: Result, name: str) -> dict[str, str]:
    """All charts by name, "" where there is nothing for one; the ids of their parts begin with `name`."""
    return {
        "forest": forest_chart(f"{name}-forest", result),
        "cases": cases_chart(f"{name}-cases", result),
        "curves": curves_chart(f"{name}-curves", result),
    }


def forest_chart(name: str, result: Result) -> str:
    """Per case, each row minus the baseline, with median and interval, and a tick per seed; "" without comparisons."""
    metric, unit = result.metric, result.unit(result.metric)
    comparisons = result.comparisons[metric]
    if not comparisons:
        return ""
    baseline, values = comparisons[0].baseline, result.per_case(metric)
    with settings():
        figure, axes = _rows_figure([item.row for item in comparisons])
        axes.axvline(0, color=INK, lw=1)
        for y, item in enumerate(comparisons):
            style = _style(result, item.row)
            gaps = _finite(values[item.row] - values[baseline])
            _dots(axes, gaps, y + 0.24, style)
            axes.plot([item.low, item.high], [y, y], color=style.colour, lw=2.4, solid_capstyle="butt")
            if math.isfinite(item.median):
                face, edge, width = (PAGE, style.colour, 1.6) if style.hollow else (style.colour, PAGE, 0.8)
                axes.plot(item.median, y, marker=style.marker, ms=8, color=face, mec=edge, mew=width)
            ours, theirs = (result.seeds[label] for label in (item.row, baseline))
            seeds = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
            axes.plot(seeds, [y] * len(seeds), ls="", marker="|", ms=9, mew=1, color=INK)
            if text := lost(item):
                axes.text(1, y - 0.3, text, transform=axes.get_yaxis_transform(), ha="right", va="center", color=MUTED)
        axes.set_xlabel(f"{in_unit(metric, unit)} minus that of {shortened(baseline)} ({direction(metric)})")
        said = "; ".join(
            f"{item.row} {number(item.median, unit, True)} ({interval(item.low, item.high, unit, True)})"
            for item in comparisons
        )
        title = f"{metric} of each row minus that of {baseline} on {result.title}, case by case"
        return to_svg(figure, name, title, f"Median difference over cases, with its 95 % interval: {said}.")


def cases_chart(name: str, arena: Arena) -> str:
    """Distribution over cases: range, quartiles and median of each row, and every case; "" without any."""
    values, unit = arena.per_case(arena.metric), arena.unit(arena.metric)
    columns = {label: _finite(values[label]) for label in values.columns}
    columns = {label: column for label, column in columns.items() if len(column)}
    if not columns:
        return ""
    with settings():
        figure, axes = _rows_figure([_named(arena, label) for label in columns])
        for y, (label, column) in enumerate(columns.items()):
            style = _style(arena, label)
            if len(column) >= _QUARTILES_FROM:
                axes.plot([column.min(), column.max()], [y, y], color=style.colour, lw=1)
                axes.plot(np.percentile(column, (25, 75)), [y, y], color=style.colour, lw=7, solid_capstyle="butt")
                axes.plot(np.median(column), y, marker="|", ms=13, mew=2, color=INK)
            _dots(axes, column, y + 0.26, style)
        axes.set_xlabel(f"{in_unit(arena.metric, unit)} per case ({direction(arena.metric)})")
        said = "; ".join(
            f"{label} {number(float(np.median(column)), unit)} "
            f"({number(float(column.min()), unit)} to {number(float(column.max()), unit)})"
            for label, column in columns.items()
        )
        title = f"{arena.metric} of the cases of {arena.title}"
        return to_svg(figure, name, title, f"Median over cases, and lowest to highest: {said}.")


_CURVES = {
    "mean_fg_dice": "Pseudo Dice on validation patches",
    "train_losses": "Training loss",
    "val_losses": "Validation loss",
}


def curves_chart(name: str, arena: Arena) -> str:
    """Training curves of all rows: nnU-Net's pseudo Dice and the two losses, averaged over runs; "" without any."""
    found = {row.label: [run.part("curves") for run in arena.runs_of(row.label)] for row in arena.rows}
    found = {label: runs for label, runs in found.items() if any(run.get("mean_fg_dice") for run in runs)}
    if not found:
        return ""
    with settings():
        figure = Figure(figsize=(_WIDTH, 4.6), layout="constrained")
        panels = figure.subplot_mosaic([["mean_fg_dice"] * 2, ["train_losses", "val_losses"]], height_ratios=(1.25, 1))
        for key, axes in panels.items():
            for label, runs in found.items():
                # a column per run, NaN where it ended earlier or logged nothing
                values = pd.DataFrame({i: pd.Series(run.get(key) or [], dtype=float) for i, run in enumerate(runs)})
                style, epochs = _style(arena, label), values.index + 1
                axes.fill_between(epochs, values.min(axis=1), values.max(axis=1), color=style.colour, alpha=0.13, lw=0)
                axes.plot(
                    epochs,
                    values.mean(axis=1),
                    color=style.colour,
                    ls=style.dashes,
                    lw=1.5,
                    marker=style.marker,
                    ms=4,
                    markevery=max(1, len(epochs) // 8),
                )
            axes.set_title(_CURVES[key])
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        handles = panels["mean_fg_dice"].get_lines()
        dice = [np.asarray(line.get_ydata(), float) for line in handles]
        rises = [number(rise(curve), signed=True) for curve in dice]
        texts = [shortened(f"{_named(arena, label)} ({by})") for label, by in zip(found, rises)]
        columns = 2 if max(map(len, texts)) < 24 else 1
        figure.legend(handles, texts, loc="outside lower center", ncols=columns, handlelength=3.2)
        ends = "; ".join(f"{label} {number(curve[-1])} ({by})" for label, curve, by in zip(found, dice, rises))
        said = f"Pseudo Dice at the end, mean over runs, and in brackets its rise over the last fifth: {ends}."
        return to_svg(figure, name, f"Training curves on {arena.title}", said)


def rise(curve: np.ndarray) -> float:
    """Mean of the last fifth of a curve's epochs minus that of the fifth before it; NaN where there are not two."""
    fifth = max(1, len(curve) // 5)
    last, before = curve[-fifth:], curve[-2 * fifth : -fifth]
    return float(last.mean() - before.mean()) if len(before) else math.nan


def _style(arena: Arena, label: str) -> Style:
    """Of a row by its place among all; the periods differ, so that many rows differ too."""
    if arena.is_human(label):
        return _HUMAN
    position = [row.label for row in arena.rows].index(label)
    return Style(*(options[position % len(options)] for options in _LOOKS))


def _rows_figure(names: Sequence[str]) -> "tuple[Figure, Axes]":
    """A chart with a line per name, each written above its line, so that no name takes width from the data."""
    figure = Figure(figsize=(_WIDTH, _FRAME + _ROW * len(names)), layout="constrained")
    axes = figure.subplots()
    for y, name in enumerate(names):
        axes.text(0, y - 0.3, shortened(name), transform=axes.get_yaxis_transform(), va="center", fontweight="bold")
    axes.set_yticks([])
    axes.set_ylim(len(names) - 0.5, -0.6)  # the first on top
    axes.spines["left"].set_visible(False)
    return figure, axes


def _dots(axes: "Axes", values: np.ndarray, y: float, style: Style) -> None:
    """Single values around a height: scattered, and always the same (golden ratio)."""
    jitter = 2 * np.modf(np.arange(len(values)) * 0.6180339887)[0] - 1
    axes.plot(values, y + 0.08 * jitter, ls="", marker=style.marker, ms=3.2, color=style.colour, alpha=0.7, mew=0)


def _finite(values: Any) -> np.ndarray:
    array = values.to_numpy(float)
    return array[np.isfinite(array)]


def _named(arena: Arena, label: str) -> str:
    if arena.comparable(label):
        return label
    return f"{label} ({'fewer cases' if arena.cases_of(label) else 'not scored yet'})"


def shortened(name: str) -> str:
    """A name with its middle left out where it is longer than a chart is wide."""
    return name if len(name) <= 34 else f"{name[:22]}\u2026{name[-11:]}"
