"""The charts of an arena.  Every number in them is in a table of the report or its CSV files too."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from swin_umamba_nnunet.benchmark.report.arenas import Arena
from swin_umamba_nnunet.benchmark.report.statistics import Comparison
from swin_umamba_nnunet.benchmark.report.summary import Summary, is_comparable
from swin_umamba_nnunet.benchmark.report.svg import INK, Style, settings, style_of, to_svg
from swin_umamba_nnunet.benchmark.report.words import direction, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 7.2  # inches, at 72 to the inch
_BOX_FROM = 5  # cases, below which quartiles say nothing
_ROW, _FRAME = 0.36, 0.75  # height of a row of a chart, and of what is around them


def means_chart(name: str, arena: Arena, summaries: Sequence[Summary], seeds: Mapping[str, Mapping[int, float]]) -> str:
    """Mean of each row with its interval over cases, and a small mark per seed."""
    shown = [summary for summary in summaries if not math.isnan(summary.mean)]
    metric = summaries[0].metric
    with settings():
        figure, axes = _rows_figure(len(shown))
        for y, summary in enumerate(shown):
            style = _style(arena, summary.label)
            if not math.isnan(summary.low):
                axes.plot([summary.low, summary.high], [y, y], color=style.colour, lw=2.2, solid_capstyle="butt")
            values = list(seeds[summary.label].values())
            axes.plot(values, [y + 0.24] * len(values), ls="", marker="|", ms=7, mew=1.1, color=INK)
            axes.plot(summary.mean, y, marker=style.marker, ms=8, color=style.colour, mec="white", mew=0.8)
        _label_rows(axes, [_named(arena, summary.label) for summary in shown], metric, arena.unit(metric))
        said = "; ".join(
            f"{s.label} {number(s.mean, arena.unit(metric))} ({number(s.low, arena.unit(metric))} to "
            f"{number(s.high, arena.unit(metric))})" for s in shown
        )  # fmt: skip
        return to_svg(figure, name, f"Mean {metric} of each trainer on {arena.title}",
                      f"Mean and 95 % interval over cases: {said}.")  # fmt: skip


def cases_chart(name: str, arena: Arena, metric: str) -> str:
    """Distribution over cases: a box per row, and every case as a point."""
    values = arena.per_case(metric)
    columns = {label: values[label].to_numpy(float) for label in values.columns}
    columns = {label: column[np.isfinite(column)] for label, column in columns.items()}
    columns = {label: column for label, column in columns.items() if len(column)}
    with settings():
        figure, axes = _rows_figure(len(columns), row=0.5)
        for y, (label, column) in enumerate(columns.items()):
            style = _style(arena, label)
            if len(column) >= _BOX_FROM:
                _draw_box(axes, y, column, style)
            axes.plot(column, y + 0.34 + 0.06 * _jitter(len(column)), ls="", marker=style.marker, ms=3,
                      color=style.colour, alpha=0.7, mew=0)  # fmt: skip
        _label_rows(axes, [_named(arena, label) for label in columns], metric, arena.unit(metric), "per case")
        said = "; ".join(
            f"{label} {number(float(np.median(column)), arena.unit(metric))} "
            f"({number(float(column.min()), arena.unit(metric))} to {number(float(column.max()), arena.unit(metric))})"
            for label, column in columns.items()
        )
        return to_svg(figure, name, f"{metric} of the cases of {arena.title}",
                      f"Median over cases, and lowest to highest: {said}.")  # fmt: skip


def _draw_box(axes: "Axes", y: float, values: np.ndarray, style: Style) -> None:
    """Quartiles, median and whiskers; drawn here because `Axes.boxplot` spells "horizontal" by version."""
    (found,) = boxplot_stats(values)
    corner, width = (found["q1"], y - 0.21), found["q3"] - found["q1"]
    axes.plot([found["whislo"], found["whishi"]], [y, y], color=style.colour, lw=1, zorder=1)
    axes.plot([found["whislo"], found["whishi"]], [y, y], ls="", marker="|", ms=8, color=style.colour)
    axes.add_patch(
        Rectangle(corner, width, 0.42, facecolor="white", edgecolor=style.colour, hatch=style.hatch, zorder=2)
    )
    axes.plot([found["med"]] * 2, [y - 0.21, y + 0.21], color=INK, lw=2, solid_capstyle="butt", zorder=3)


def differences_chart(name: str, arena: Arena, comparisons: Sequence[Comparison]) -> str:
    """Per case, each row minus the baseline."""
    metric, baseline = comparisons[0].metric, comparisons[0].baseline
    values = arena.per_case(metric)
    with settings():
        figure, axes = _rows_figure(len(comparisons), row=0.42)
        axes.axvline(0, color=INK, lw=1)
        for y, item in enumerate(comparisons):
            style = _style(arena, item.row)
            gaps = (values[item.row] - values[baseline]).to_numpy(float)
            gaps = gaps[np.isfinite(gaps)]
            axes.plot(gaps, y + 0.27 + 0.08 * _jitter(len(gaps)), ls="", marker=style.marker, ms=3.2,
                      color=style.colour, alpha=0.7, mew=0)  # fmt: skip
            if not math.isnan(item.low):
                axes.plot([item.low, item.high], [y, y], color=style.colour, lw=2.2, solid_capstyle="butt")
            if math.isfinite(item.median):
                axes.plot(item.median, y, marker=style.marker, ms=8, color=style.colour, mec="white", mew=0.8)
        unit = arena.unit(metric)
        _label_rows(axes, [item.row for item in comparisons], metric, unit, f"minus that of {baseline}, per case")
        said = "; ".join(f"{item.row} {number(item.median, unit, True)}" for item in comparisons)
        return to_svg(figure, name, f"{metric} of each trainer minus that of {baseline}, case by case",
                      f"Median difference over cases: {said}.")  # fmt: skip


def curves_chart(name: str, arena: Arena) -> str:
    """Training curves of all rows: nnU-Net's pseudo Dice and the two losses, averaged over runs; "" without any."""
    panels = (
        ("mean_fg_dice", "Pseudo Dice on validation patches"),
        ("train_losses", "Training loss"),
        ("val_losses", "Validation loss"),
    )
    curves = {row.label: [cell.part("curves") for cell in arena.cells_of(row)] for row in arena.rows}
    longest = {label: _together(cells, "mean_fg_dice") for label, cells in curves.items()}
    shown = {label: cells for label, cells in curves.items() if len(longest[label])}
    if not shown:
        return ""
    with settings():
        figure = Figure(figsize=(_WIDTH, 5.2), layout="constrained")
        axes = figure.subplot_mosaic([["mean_fg_dice"] * 2, ["train_losses", "val_losses"]], height_ratios=(1.25, 1))
        for key, title in panels:
            for label, cells in shown.items():
                values = _together(cells, key)
                if not len(values):
                    continue
                style, epochs = _style(arena, label), np.arange(1, values.shape[1] + 1)
                mean = _over_runs(values, np.nanmean)
                if len(values) > 1:
                    low, high = _over_runs(values, np.nanmin), _over_runs(values, np.nanmax)
                    axes[key].fill_between(epochs, low, high, color=style.colour, alpha=0.13, lw=0)
                axes[key].plot(epochs, mean, color=style.colour, ls=style.dashes, lw=1.5, marker=style.marker, ms=4.5,
                               markevery=max(1, len(epochs) // 8))  # fmt: skip
            axes[key].set_title(title)
            axes[key].set_xlabel("epoch")
            axes[key].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _legend(figure, arena, list(shown))
        ends = "; ".join(f"{label} {number(float(_over_runs(longest[label], np.nanmean)[-1]))}" for label in shown)
        return to_svg(figure, name, f"Training curves on {arena.title}",
                      f"Pseudo Dice at the end, mean over runs: {ends}.")  # fmt: skip


def cost_chart(name: str, arena: Arena, summaries: Sequence[Summary], costs: Sequence[Mapping[str, Any]]) -> str:
    """Mean against each cost, a panel per cost; "" where no cost is recorded."""
    axes_of: tuple[tuple[str, str, Callable[[float], float]], ...] = (
        ("parameters", "parameters (millions)", lambda value: value / 1e6),
        ("flops", "multiply-adds at batch 1 (G)", lambda value: value / 1e9),
        ("seconds_per_epoch", "seconds per epoch", float),
        ("peak_memory_bytes", "peak memory in training (GiB)", lambda value: value / 2**30),
        ("seconds_per_case", "seconds per predicted case", float),
    )
    means = {summary.label: summary for summary in summaries if not math.isnan(summary.mean)}
    rows = [cost for cost in costs if cost["label"] in means]
    panels = [panel for panel in axes_of if any(cost[panel[0]] is not None for cost in rows)]
    if not panels:
        return ""
    metric = summaries[0].metric
    with settings():
        lines = math.ceil(len(panels) / 2)
        figure = Figure(figsize=(_WIDTH, 2.3 * lines + 0.3), layout="constrained")
        grid = figure.subplots(lines, 2, squeeze=False, sharey=True).ravel()
        for axes, (key, title, scale) in zip(grid, panels):
            for cost in rows:
                if cost[key] is None:
                    continue
                style, summary = _style(arena, cost["label"]), means[cost["label"]]
                x = scale(cost[key])
                if not math.isnan(summary.low):
                    axes.plot([x, x], [summary.low, summary.high], color=style.colour, lw=1.1, ls=style.dashes)
                axes.plot(x, summary.mean, marker=style.marker, ms=8, color=style.colour, mec="white", mew=0.8)
            axes.set_xlabel(title)
            axes.margins(y=0.12)
            axes.set_xlim(0, 1.08 * max(scale(cost[key]) for cost in rows if cost[key] is not None) or 1)
        for axes in grid[::2]:
            axes.set_ylabel(f"mean {metric}")
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        _legend(figure, arena, [cost["label"] for cost in rows])
        said = "; ".join(
            f"{cost['label']} {metric} {number(means[cost['label']].mean, arena.unit(metric))} at "
            + ", ".join(f"{scale(cost[key]):.3g} {title}" for key, title, scale in panels if cost[key] is not None)
            for cost in rows
        )
        return to_svg(figure, name, f"Mean {metric} against cost on {arena.title}", f"{said}.")


def _style(arena: Arena, label: str) -> Style:
    return style_of([row.label for row in arena.rows].index(label))


def _rows_figure(count: int, row: float = _ROW) -> "tuple[Figure, Axes]":
    figure = Figure(figsize=(_WIDTH, _FRAME + row * count), layout="constrained")
    return figure, figure.subplots()


def _label_rows(axes: "Axes", names: Sequence[str], metric: str, unit: str, what: str = "") -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first on top
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    in_unit = "" if unit == "1" else f" in {unit}"
    axes.set_xlabel(" ".join(part for part in (f"{metric}{in_unit}", what, f"({direction(metric)})") if part))


def _named(arena: Arena, label: str) -> str:
    return label if is_comparable(arena, label) or not arena.cases_of(label) else f"{label} (fewer cases)"


def _short(name: str, most: int = 34) -> str:
    return name if len(name) <= most else f"{name[: most - 12]}\u2026{name[-11:]}"


def _legend(figure: Figure, arena: Arena, names: Sequence[str]) -> None:
    styles = [_style(arena, name) for name in names]
    handles = [Line2D([], [], color=s.colour, marker=s.marker, ls=s.dashes, ms=6) for s in styles]
    longest = max(len(_short(_named(arena, name))) for name in names)
    columns = max(1, min(len(names), int(92 / (longest + 8))))
    figure.legend(
        handles,
        [_short(_named(arena, name)) for name in names],
        loc="outside lower center",
        ncols=columns,
        handlelength=3.2,
    )


def _together(cells: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """(runs, epochs) of one curve, NaN where a run ended earlier or logged nothing."""
    curves = [[math.nan if value is None else float(value) for value in cell.get(key) or []] for cell in cells]
    curves = [curve for curve in curves if curve]
    longest = max(map(len, curves), default=0)
    return np.array([curve + [math.nan] * (longest - len(curve)) for curve in curves]).reshape(len(curves), longest)


def _over_runs(values: np.ndarray, reduce: Callable[..., np.ndarray]) -> np.ndarray:
    """Per epoch over the runs that have a value; NaN where none has."""
    result = np.full(values.shape[1], math.nan)
    there = ~np.isnan(values).all(axis=0)
    result[there] = reduce(values[:, there], axis=0)
    return result


def _jitter(count: int) -> np.ndarray:
    """Offsets in [-1, 1] that look scattered and are always the same (golden ratio)."""
    return 2 * np.modf(np.arange(count) * 0.6180339887)[0] - 1
