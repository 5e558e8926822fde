"""Figures as one picture: bars that can be told apart in greyscale by their hatching."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure as Canvas

from tests.speed.record import (
    BASELINE,
    COMPILED,
    CORE,
    EAGER,
    FUSED,
    GRAPH,
    INFERENCE,
    MAMBA_SSM,
    OWN,
    SAVED,
    STEP,
    Figure,
    measured,
)

FORMATS = (".png", ".svg", ".pdf")
# Okabe and Ito's colours, light and dark in turn; the hatch says the same in greyscale
_STYLES = {
    (FUSED, EAGER): ("#0072B2", ""), (FUSED, COMPILED): ("#56B4E9", "//"), (FUSED, GRAPH): ("#1a1a1a", ""),
    (OWN, EAGER): ("#E69F00", ".."), (MAMBA_SSM, EAGER): ("#F0E442", "xx"),
}  # fmt: skip
_GREY = "#BBBBBB"
_SETTINGS: Any = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "hatch.linewidth": 0.6, "legend.frameon": False,
    "text.parse_math": False,
}  # fmt: skip
_WIDTH, _BAR, _FRAME, _DPI = 7.5, 0.17, 0.75, 150  # inches, dots per inch
BOTH = "forward+backward"
_MOST_ROWS = 12  # of a panel


def draw(documents: Sequence[Mapping[str, Any]], path: Path, form: str) -> None:
    """Write one picture of all documents, a panel per document and question.

    Args:
        documents: as `record.read_document` returns them.
        path: where.
        form: "png", "svg" or "pdf".

    Raises:
        ValueError: they hold nothing that can be drawn.
    """
    panels = [panel for document in documents for panel in _panels(document)]
    if not panels:
        raise ValueError("the files hold no figure that could be drawn: no scan, network or memory was measured")
    heights = [_FRAME + _BAR * sum(len(bars) + 0.8 for bars in panel.rows.values()) for panel in panels]
    with matplotlib.rc_context(_SETTINGS):
        canvas = Canvas(figsize=(_WIDTH, sum(heights) + 0.2), layout="constrained", facecolor="white")
        grid = canvas.subplots(len(panels), 1, squeeze=False, height_ratios=heights).ravel()
        for axes, panel in zip(grid, panels):
            panel.draw(axes)
        canvas.savefig(path, format=form, dpi=_DPI)


class _Panel:
    """Groups of horizontal bars.

    Attributes:
        rows: label of a group -> label of a bar -> (value, style).
        left_out: whether there were more groups than fit.
    """

    def __init__(self, title: str, unit: str) -> None:
        self.title, self.unit, self.left_out = title, unit, False
        self.rows: dict[str, dict[str, tuple[float, tuple[str, str]]]] = {}

    def add(self, row: str, bar: str, value: float | None, style: tuple[str, str]) -> None:
        """A bar; nothing where there is no value or no room."""
        if value is None:
            return
        if row not in self.rows and len(self.rows) == _MOST_ROWS:
            self.left_out = True
        else:
            self.rows.setdefault(row, {})[bar] = (value, style)

    def draw(self, axes: Any) -> None:
        """Onto the axes, from the top down, each bar with its number."""
        y, ticks = 0.0, []
        largest = max(value for bars in self.rows.values() for value, _ in bars.values())
        seen: set[str] = set()
        for bars in self.rows.values():
            ticks.append(y + (len(bars) - 1) / 2)
            for bar, (value, (colour, hatch)) in bars.items():
                axes.barh(y, value, 0.86, color=colour, hatch=hatch, edgecolor="#1a1a1a", linewidth=0.5,
                          label=None if bar in seen else bar)  # fmt: skip
                axes.text(value + 0.008 * largest, y, _number(value), va="center", fontsize=7)
                seen.add(bar)
                y += 1
            y += 0.8
        axes.set_yticks(ticks, list(self.rows))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(y - 0.9, -0.9)
        axes.set_xlim(0, 1.12 * largest)
        axes.set_xlabel(self.unit)
        axes.set_title(self.title + (f" (the first {_MOST_ROWS} of them)" if self.left_out else ""))
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7, handlelength=1.6)


def _panels(document: Mapping[str, Any]) -> list[_Panel]:
    figures, device = measured(document["figures"]), document["device"]
    head = f"{device['name']}, {document['date'][:10]}"
    panels = [
        _scans(figures, head),
        *(_networks(figures, head, passes, device["type"]) for passes in (STEP, INFERENCE)),
        _kept(figures, head),
    ]
    return [panel for panel in panels if panel.rows]


def _scans(figures: Sequence[Figure], head: str) -> _Panel:
    panel = _Panel(f"{head}: SS2D's scan with projections, {BOTH}", "G state-steps/s (more is faster)")
    chosen = [f for f in figures if f.what == CORE and f.passes == BOTH and (f.pipeline, f.mode) in _STYLES]
    backends = sorted({f.backend or "" for f in chosen if f.pipeline == FUSED})
    for figure in chosen:
        bar, style = figure.pipeline, _STYLES[figure.pipeline, figure.mode]
        if len(backends) > 1 and figure.pipeline == FUSED:  # bench ops compares backends
            bar = figure.backend or ""
            style = list(_STYLES.values())[backends.index(bar) % len(_STYLES)]
        where = f"{_images(figure)}\n/{figure.stride}, D {figure.channels}"
        panel.add(where, bar, figure.giga_state_steps, style)
    return panel


def _networks(figures: Sequence[Figure], head: str, passes: str, device: str) -> _Panel:
    chosen = [f for f in figures if f.passes == passes and (f.pipeline, f.mode) in _STYLES and f.milliseconds]
    base, unit = 1.0, "ms per call (less is faster)"
    if device != "cuda" and chosen:
        first = next((f for f in chosen if f.what == BASELINE), chosen[0])
        base, unit = first.milliseconds or 1.0, f"time over {first.what}'s, {_images(first)} (less is faster)"
    panel = _Panel(f"{head}: {passes}", unit)
    for figure in chosen:
        scan, style = (figure.pipeline, _STYLES[figure.pipeline, figure.mode])
        if figure.backend is None:
            scan, style = "no scan", (_GREY, style[1])
        bar = scan if figure.mode == EAGER else f"{scan}, {figure.mode}"
        panel.add(f"{figure.what}\n{_images(figure)}", bar, (figure.milliseconds or 0) / base, style)
    return panel


def _kept(figures: Sequence[Figure], head: str) -> _Panel:
    panel = _Panel(f"{head}: kept for backward in one SS2D core", "MiB (less is better)")
    for figure in figures:
        if figure.what == CORE and figure.passes == SAVED:
            where = f"{_images(figure)}\n/{figure.stride}, D {figure.channels}"
            panel.add(where, figure.pipeline, figure.saved_mebibytes, _STYLES[figure.pipeline, EAGER])
    return panel


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _images(figure: Figure) -> str:
    return f"{figure.batch} x {figure.size[0]}x{figure.size[1]}, {figure.dtype}"
