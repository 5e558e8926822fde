"""The section of one arena: its tables as text, its charts, its sentences."""

import math
from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from swin_umamba_nnunet.benchmark.report import charts, words
from swin_umamba_nnunet.benchmark.report.analysis import Analysis, ArenaResult
from swin_umamba_nnunet.benchmark.report.arenas import lower_is_better
from swin_umamba_nnunet.benchmark.report.pictures import pictures
from swin_umamba_nnunet.benchmark.report.provenance import clock
from swin_umamba_nnunet.benchmark.report.published import published_for
from swin_umamba_nnunet.benchmark.report.statistics import ALPHA
from swin_umamba_nnunet.benchmark.report.summary import Summary, is_comparable
from swin_umamba_nnunet.evaluation.records import ALL_CLASSES

FEW_CASES = 10  # below which an interval over cases deserves a warning


def section(result: ArenaResult, analysis: Analysis, position: int, n_pictures: int, published: bool) -> dict[str, Any]:
    """What the template needs for one arena; `position` makes ids unique."""
    arena, metric = result.arena, result.metric
    name = f"dataset-{position}"
    shown = pictures(arena, metric, n_pictures)
    return {
        "id": name,
        "title": arena.title,
        "metric": metric,
        "about": _about(result),
        "short": list(_short(result, analysis)),
        "means_caption": (
            "Mean of class means over cases, runs averaged per case; 95 % interval over cases; sample standard "
            "deviations of the means of seeds and of folds; rank with its 95 % range. Bold: the best mean, which need "
            "not differ from the next."
        ),
        "means": list(_means(result)),
        "means_notes": list(_means_notes(result)),
        "cases_note": _cases_note(result),
        "comparisons": [_comparisons(result, key, analysis) for key in arena.metrics],
        "classes": [_classes(result, key) for key in arena.metrics],
        "costs": list(_costs(result)),
        "cost_caption": _cost_caption(result),
        "charts": {key: Markup(text) for key, text in _charts(result, name).items()},
        "better_side": f"Right of the line, the trainer is {'worse' if lower_is_better(metric) else 'better'}.",
        "up": "lower" if lower_is_better(metric) else "higher",
        "pictures": shown,
        "why_no_pictures": "No pictures were asked for." if n_pictures == 0 else
            f"There is no case in which two rows differ in {metric}.",
        "suitability": words.suitability_sentence(result.suitability),
        "published": published_for(arena.dataset) if published else [],
    }  # fmt: skip


def _about(result: ArenaResult) -> str:
    arena = result.arena
    details = "; ".join(f"{key}: {text}" for key in arena.metrics if (text := arena.details(key)))
    return (
        f"{words.plural(len(arena.cases), 'case')} ({arena.scored_on}), {len(arena.classes)} "
        f"{'class' if len(arena.classes) == 1 else 'classes'}; {len(arena.done)} of {len(arena.cells)} cells have "
        "scores." + (f" {details}." if details else "")
    )


def _short(result: ArenaResult, analysis: Analysis) -> Iterator[str]:
    metric, unit = result.metric, result.arena.unit(result.metric)
    ranked = sorted((s for s in result.summaries[metric] if not math.isnan(s.rank)), key=lambda s: s.rank)
    if len(ranked) > 1:
        best = ranked[0]
        also = [s.label for s in ranked[1:] if s.rank_low <= 1 or s.rank == best.rank]
        text = f"Highest mean {metric}" if not lower_is_better(metric) else f"Lowest mean {metric}"
        interval = "" if math.isnan(best.low) else f" ({words.interval(best.low, best.high, unit)})"
        text += f": {best.label}, {words.number(best.mean, unit)}{interval}."
        if also:
            text += f" With other cases of this kind the first place could as well be that of {', '.join(also)}."
        yield text
    comparisons = result.comparisons[metric]
    if not comparisons:
        yield _why_none(result, analysis)
    yield from (words.sentence(item, unit) for item in comparisons)
    yield words.suitability_sentence(result.suitability)


def _head(result: ArenaResult, metric: str) -> dict[str, Any]:
    unit = result.arena.unit(metric)
    undefined = any(s.n_undefined for s in result.summaries[metric])
    infinite = any(s.n_infinite for s in result.summaries[metric])
    title = metric if unit == "1" else f"{metric} in {unit}"
    return {"title": title, "sub": words.direction(metric), "undefined": undefined, "infinite": infinite}


def _means(result: ArenaResult) -> Iterator[dict[str, Any]]:
    for metric, found in result.summaries.items():
        head, unit = _head(result, metric), result.arena.unit(metric)
        best = min((summary.rank for summary in found if not math.isnan(summary.rank)), default=math.nan)
        yield {
            "head": head,
            "lines": [
                {"row": row, "cells": f"{item.done}/{item.planned}", "entry": _mean_item(item, unit, item.rank == best)}
                for row, item in zip(result.arena.rows, found)
            ],
        }  # fmt: skip


def _mean_item(summary: Summary, unit: str, best: bool) -> dict[str, Any]:
    ranged = not math.isnan(summary.rank_low)
    return {
        "best": best, "mean": words.number(summary.mean, unit),
        "interval": words.interval(summary.low, summary.high, unit),
        "sd_seeds": words.number(summary.sd_seeds, unit), "sd_folds": words.number(summary.sd_folds, unit),
        "undefined": f"{summary.n_undefined} of {summary.n_values}",
        "infinite": f"{summary.n_infinite} of {summary.n_values}",
        "rank": words.rank(summary.rank),
        "rank_range": f"{words.rank(summary.rank_low)} to {words.rank(summary.rank_high)}" if ranged else "",
    }  # fmt: skip


def _means_notes(result: ArenaResult) -> Iterator[str]:
    found = result.summaries[result.metric]
    if 0 < min((s.n_cases for s in found if s.done), default=0) < FEW_CASES:
        yield f"Over fewer than {FEW_CASES} cases, a bootstrap interval is a rough guess, and too narrow."
    partial = [f"{s.label} ({s.done} of {s.planned} cells)" for s in found if 0 < s.done < s.planned and s.comparable]
    if partial:
        yield f"From fewer runs than planned, but on all cases: {', '.join(partial)}."
    unranked = [s.label for s in found if s.done and not s.comparable]
    if unranked:
        yield f"Not ranked, because not scored on all {len(result.arena.cases)} cases: {', '.join(unranked)}."
    absent = [s.label for s in found if not s.done]
    if absent:
        yield f"No finished cell: {', '.join(absent)}."
    lost = sum(s.n_undefined + s.n_infinite for items in result.summaries.values() for s in items)
    if lost:
        yield (
            "Undefined (neither mask has the class) and infinite (only one has) values are counted over cases, classes "
            "and runs; they are in no mean. A mean distance without its infinite values flatters whoever missed most."
        )


def _cases_note(result: ArenaResult) -> str:
    values = result.arena.per_case(result.metric).to_numpy(float)
    infinite = int((values == math.inf).sum())
    return f" {words.plural(infinite, 'infinite value')} cannot be drawn." if infinite else ""


def _comparisons(result: ArenaResult, metric: str, analysis: Analysis) -> dict[str, Any]:
    unit = result.arena.unit(metric)
    rows = {row.label: row for row in result.arena.rows}
    return {
        "metric": metric,
        "caption": (
            f"{metric}{'' if unit == '1' else ' in ' + unit} of each row minus that of {analysis.baseline} "
            f"({words.direction(metric)}), paired by case, runs averaged. Wilcoxon's signed-rank test, Holm-corrected "
            "over these rows; effect r: matched-pairs rank-biserial correlation, positive where the row is better. "
            f"Bold: corrected p below {ALPHA}."
        ),
        "left_out": any(item.n_left_out for item in result.comparisons[metric]),
        "lines": [
            {"row": rows[item.row], "item": item, "median": words.number(item.median, unit, True),
             "interval": words.interval(item.low, item.high, unit, True), "effect": words.coefficient(item.effect),
             "p": words.p_value(item.p), "p_holm": words.p_value(item.p_holm), "convincing": item.p_holm < ALPHA,
             "seeds": f"{item.n_seeds_better} of {item.n_seeds}" if item.n_seeds else words.DASH,
             "sentence": words.sentence(item, unit)}
            for item in result.comparisons[metric]
        ],
        "why_none": _why_none(result, analysis),
    }  # fmt: skip


def _why_none(result: ArenaResult, analysis: Analysis) -> str:
    if not any(cell.done for cell in result.arena.cells_of(analysis.baseline)):
        return f"Nothing can be compared: {analysis.baseline}, the baseline, has no finished cell here."
    return f"Nothing can be compared: no other row than {analysis.baseline} has scores here."


def _classes(result: ArenaResult, metric: str) -> dict[str, Any]:
    unit, arena = result.arena.unit(metric), result.arena
    names = [*arena.classes, ALL_CLASSES] if len(arena.classes) > 1 else list(arena.classes)
    lines = []
    for name in names:
        found = [result.classes[metric][row.label].get(name) for row in arena.rows]
        means = [
            item.mean
            for row, item in zip(arena.rows, found)
            if item is not None and not math.isnan(item.mean) and is_comparable(arena, row.label)
        ]
        best = (min if lower_is_better(metric) else max)(means, default=math.nan)
        values = []
        for item in found:
            if item is None:
                values.append({"mean": words.DASH, "interval": "", "lost": "", "best": False})
                continue
            lost = item.n_undefined if name != ALL_CLASSES else 0
            values.append({
                "mean": words.number(item.mean, unit), "interval": words.interval(item.low, item.high, unit),
                "lost": f"{lost} of {item.n_cases} cases without" if lost else "", "best": item.mean == best,
            })  # fmt: skip
        lines.append({"name": "mean of classes" if name == ALL_CLASSES else name, "entries": values})
    return {
        "title": metric if unit == "1" else f"{metric} in {unit}",
        "caption": f"Mean over cases, runs averaged, and 95 % interval over cases ({words.direction(metric)}); "
                   "\u201cwithout\u201d: cases without a finite value in any run.",
        "lines": lines,
    }  # fmt: skip


def _costs(result: ArenaResult) -> Iterator[dict[str, Any]]:
    unit = result.arena.unit(result.metric)
    for row, cost, summary in zip(result.arena.rows, result.costs, result.summaries[result.metric]):
        patch = " x ".join(map(str, cost["patch_size"])) if cost["patch_size"] else words.DASH
        values = [
            words.number(summary.mean, unit),
            words.quantity(cost["parameters"], words.COUNT),
            words.flops(cost),
            words.quantity(cost["scan_flops"], words.COUNT) if cost["scan_flops"] else words.DASH,
            words.seconds(cost["seconds_per_epoch"]),
            clock(cost["training_seconds"]),
            words.quantity(cost["peak_memory_bytes"], words.BYTES),
            words.seconds(cost["seconds_per_case"]),
            f"{cost['epochs']} x {cost['iterations_per_epoch']}" if cost["epochs"] else words.DASH,
            f"{cost['batch_size']}, {patch}" if cost["batch_size"] else words.DASH,
        ]
        yield {"row": row, "entries": values}


def _cost_caption(result: ArenaResult) -> str:
    whats = sorted({cost["peak_memory_what"] for cost in result.costs if cost["peak_memory_what"]})
    devices = sorted({cost["devices"] for cost in result.costs if cost["devices"]})
    return (
        "Parameters; multiply-adds of one forward pass at batch 1, scans included; median over epochs and runs of the "
        f"time per epoch; highest memory of any run{f' ({chr(44).join(whats)})' if whats else ''}; prediction per "
        f"case, loading and writing included{f'. Measured on: {chr(44).join(devices)}' if devices else ''}."
    )


def _charts(result: ArenaResult, name: str) -> dict[str, str]:
    arena, metric = result.arena, result.metric
    summaries, comparisons = result.summaries[metric], result.comparisons[metric]
    scored = any(not math.isnan(summary.mean) for summary in summaries)
    return {
        "means": charts.means_chart(f"{name}-means", arena, summaries, result.seeds) if scored else "",
        "cases": charts.cases_chart(f"{name}-cases", arena, metric) if scored else "",
        "differences": charts.differences_chart(f"{name}-differences", arena, comparisons) if comparisons else "",
        "curves": charts.curves_chart(f"{name}-curves", arena),
        "cost": charts.cost_chart(f"{name}-cost", arena, summaries, result.costs),
    }
