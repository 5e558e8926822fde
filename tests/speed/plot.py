"""Figures as one picture: bars that can be told apart in greyscale by their hatching."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure as Canvas

from swin_umamba_nnunet._text import by
from tests.speed.record import (
    BOTH,
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
    WITHOUT,
    Figure,
)

FORMATS = (".png", ".svg", ".pdf")
# Okabe and Ito's colours, light and dark in turn; the hatch says the same in greyscale
STYLES = {
    (FUSED, EAGER): ("#0072B2", ""),
    (FUSED, COMPILED): ("#56B4E9", "//"),
    (FUSED, GRAPH): ("#1a1a1a", ""),
    (OWN, EAGER): ("#E69F00", ".."),
    (MAMBA_SSM, EAGER): ("#F0E442", "xx"),
    (WITHOUT, EAGER): ("#BBBBBB", "\\\\"),
}
# passes -> (what is drawn of them, unit, number)
_PANELS: dict[str, tuple[str, str, Callable[[Figure], float | None]]] = {
    BOTH: (f"SS2D's scan with projections, {BOTH}", "G state-steps/s (more is faster)", lambda f: f.giga_state_steps),
    STEP: (STEP, "ms per call (less is faster)", lambda f: f.milliseconds),
    INFERENCE: (INFERENCE, "ms per call (less is faster)", lambda f: f.milliseconds),
    SAVED: ("kept for backward in one SS2D core", "MiB (less is better)", lambda f: f.saved_mebibytes),
}
_SETTINGS: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,
}
MOST_ROWS = 12  # of a panel


def draw(documents: Sequence[Mapping[str, Any]], path: Path, form: str) -> None:
    """Write one picture of all documents, a panel per document and question.

    Args:
        documents: as `record.read_document` returns them.
        path: where.
        form: "png", "svg" or "pdf".

    Raises:
        ValueError: they hold nothing that can be drawn.
    """
    panels = [(d, passes, frame) for d in documents for passes in _PANELS if len(frame := bars(d["figures"], passes))]
    if not panels:
        raise ValueError("the files hold no figure that could be drawn: no scan, network or memory was measured")
    heights = [0.75 + 0.17 * (frame.notna().sum().sum() + 0.8 * len(frame)) for *_, frame in panels]  # inches
    with matplotlib.rc_context(_SETTINGS):
        canvas = Canvas(figsize=(7.5, sum(heights) + 0.2), layout="constrained", facecolor="white")
        grid = canvas.subplots(len(panels), 1, squeeze=False, height_ratios=heights).ravel()
        for axes, (document, passes, frame) in zip(grid, panels):
            title, unit, _ = _PANELS[passes]
            left_out = f" (the first {MOST_ROWS} of them)" if len(frame) > MOST_ROWS else ""
            frame = frame.head(MOST_ROWS)
            frame.plot.barh(ax=axes, width=0.86, edgecolor="#1a1a1a", linewidth=0.5, xlabel=unit, ylabel="")
            axes.set_title(f"{document['device']['name']}, {document['date'][:10]}: {title}{left_out}")
            for drawn, (pipeline, mode, backend) in zip(axes.containers, frame.columns):
                colour, hatch = STYLES[pipeline, mode]
                said = f"{pipeline} ({backend})" if backend else pipeline
                drawn.set_label(said if mode == EAGER else f"{said}, {mode}")
                for bar in drawn:
                    bar.set(facecolor=colour, hatch=hatch)
                axes.bar_label(drawn, fmt=lambda value: f"{value:.3g}" if value else "", fontsize=7, padding=2)
            axes.invert_yaxis()
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7, handlelength=1.6)
        canvas.savefig(path, format=form, dpi=150)


def bars(figures: Sequence[Figure], passes: str) -> pd.DataFrame:
    """A row for each shape or network, a column for each (pipeline, mode, backend); those that have a number."""
    _, _, value = _PANELS[passes]
    known = [f for f in figures if f.passes == passes and (f.pipeline, f.mode) in STYLES and value(f)]
    chosen = [f for f in known if f.what == CORE or not f.channels]
    rows = {}
    for f in chosen:
        place = f"/{f.stride}, D {f.channels}" if f.channels else f.what
        rows.setdefault((f.pipeline, f.mode, f.backend), {})[f"{place}\n{f.batch} x {by(f.size)}, {f.dtype}"] = value(f)
    return pd.DataFrame(rows)
