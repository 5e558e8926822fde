"""The tables of an arena: means with their spread and interval, ranks, classes, costs, and how far it can separate."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from swin_umamba_nnunet.benchmark.report.arenas import Arena, lower_is_better
from swin_umamba_nnunet.benchmark.report.collect import Row
from swin_umamba_nnunet.benchmark.report.statistics import cell_means, fold_means, seed_means
from swin_umamba_nnunet.evaluation.records import ALL_CLASSES, Measurement, Statistic
from swin_umamba_nnunet.evaluation.statistics import INTERVAL, Bootstrap, class_statistics


@dataclass(frozen=True)
class Summary:
    """One row and metric.

    Attributes:
        label: of the row.
        metric: which.
        mean: mean of class means, runs averaged per case; finite values only.
        low, high: 95 % percentile-bootstrap interval of it over cases, these trainings taken as given.
        sd_seeds, n_seeds: sample standard deviation of the means of seeds (each over all folds); NaN below two.
        sd_folds, n_folds: the same of the means of folds (each over its seeds), which also differ in their cases.
        n_cases: scored.
        n_values, n_undefined, n_infinite: single values (case x class x run), and how many are not in the means.
        done, planned: cells.
        comparable: scored on every case that any row was scored on, so that its mean may be ranked.
        rank: among the comparable rows, ties sharing the mean rank; NaN if it is not.
        rank_low, rank_high: where the rank lies in 95 % of the resamples of the cases.
    """

    label: str
    metric: str
    mean: float
    low: float
    high: float
    sd_seeds: float
    n_seeds: int
    sd_folds: float
    n_folds: int
    n_cases: int
    n_values: int
    n_undefined: int
    n_infinite: int
    done: int
    planned: int
    comparable: bool
    rank: float = math.nan
    rank_low: float = math.nan
    rank_high: float = math.nan

    @property
    def complete(self) -> bool:
        """Whether every cell of it is done."""
        return self.done == self.planned


@dataclass(frozen=True)
class Suitability:
    """Whether a dataset separates the methods at all (after nnU-Net Revisited, arXiv 2404.09556).

    Attributes:
        between: standard deviation of the rows' means.
        within: mean over rows of the standard deviation of a row's cells (folds and seeds).
        ratio: between / within.
        by_chance: the ratio to expect of rows that are all the same, 1/sqrt(cells per row), seeds and folds taken as
            independent.
        n_rows, n_cells: rows, and cells per row (the fewest).
    """

    between: float
    within: float
    ratio: float
    by_chance: float
    n_rows: int
    n_cells: int


def class_table(arena: Arena, metric: str, bootstrap: Bootstrap) -> dict[str, dict[str, Statistic]]:
    """Label -> class (`ALL_CLASSES` included) -> statistic over cases, runs averaged per case."""
    frame, unit = arena.over_runs(metric), arena.unit(metric)
    table: dict[str, dict[str, Statistic]] = {}
    for row in arena.rows:
        lines = frame[frame["row"] == row.label]
        measured = [
            Measurement(case, name, metric, value, unit, "plain")
            for case, name, value in zip(lines["case"], lines["class"], lines["value"])
        ]
        found = {item.label: item for item in class_statistics(measured, bootstrap)}
        if len(found) == 1:  # a single class is all classes
            found[ALL_CLASSES] = next(iter(found.values()))
        table[row.label] = found
    return table


def summarise(arena: Arena, metric: str, table: Mapping[str, Mapping[str, Statistic]],
              bootstrap: Bootstrap) -> list[Summary]:  # fmt: skip
    """One summary per row, in the order of the rows; `table` is from `class_table`."""
    seeds, folds = seed_means(arena, metric), fold_means(arena, metric)
    ranks = _ranks(arena, metric, table, bootstrap)
    found = []
    for row in arena.rows:
        label, cells = row.label, arena.cells_of(row)
        values = arena.values(metric)
        own = values.loc[values["row"] == label, "value"].astype(float)
        overall = table[label].get(ALL_CLASSES)
        mean, low, high = (overall.mean, overall.low, overall.high) if overall else (math.nan,) * 3
        found.append(Summary(
            label, metric, mean, low, high,
            _sd(seeds[label].values()), len(seeds[label]), _sd(folds[label].values()), len(folds[label]),
            len(arena.cases_of(label)), len(own), int(own.isna().sum()), int(np.isinf(own).sum()),
            sum(cell.done for cell in cells), len(cells), is_comparable(arena, label),
            *ranks.get(label, (math.nan,) * 3),
        ))  # fmt: skip
    return found


def is_comparable(arena: Arena, label: str) -> bool:
    """Whether a row was scored on all cases of the arena."""
    return bool(arena.cases) and arena.cases_of(label) == arena.cases


def _ranks(
    arena: Arena, metric: str, table: Mapping[str, Mapping[str, Statistic]], bootstrap: Bootstrap
) -> dict[str, tuple[float, float, float]]:
    """Label -> (rank of the mean, lower and upper rank over resamples of the cases) of the comparable rows."""
    names = [row.label for row in arena.rows if is_comparable(arena, row.label)
             and not math.isnan(_mean(table[row.label]))]  # fmt: skip
    if not names:
        return {}
    sign = 1.0 if lower_is_better(metric) else -1.0
    ranks = pd.Series([sign * _mean(table[name]) for name in names]).rank().to_numpy()
    cases, classes = sorted(arena.cases), list(arena.classes)
    if len(cases) < 2:
        return {name: (float(rank), math.nan, math.nan) for name, rank in zip(names, ranks)}
    grid = arena.over_runs(metric).set_index(["case", "row", "class"])["value"]
    columns = grid.unstack(["row", "class"]).reindex(
        index=cases, columns=pd.MultiIndex.from_product([names, classes])
    )  # the same cases in the same order for all rows, so that all are resampled together
    means = bootstrap.means(columns.to_numpy(float)).reshape(-1, len(names), len(classes))
    there = np.isfinite(means)
    total = np.where(there, means, 0.0).sum(axis=2) / np.maximum(there.sum(axis=2), 1)
    total = np.where(there.any(axis=2), sign * total, np.inf)
    resampled = pd.DataFrame(total).rank(axis=1).to_numpy()
    lows, highs = np.percentile(resampled, INTERVAL, axis=0, method="nearest")
    return {name: (float(a), float(b), float(c)) for name, a, b, c in zip(names, ranks, lows, highs)}


def suitability(arena: Arena, metric: str) -> Suitability | None:
    """Between rows over within rows; None below two rows of at least two cells each."""
    cells = {name: means for name, means in cell_means(arena, metric).items() if is_comparable(arena, name)}
    cells = {name: [mean for mean in means if not math.isnan(mean)] for name, means in cells.items()}
    cells = {name: means for name, means in cells.items() if len(means) > 1}
    if len(cells) < 2:
        return None
    between = statistics.stdev(statistics.fmean(means) for means in cells.values())
    within = statistics.fmean(statistics.stdev(means) for means in cells.values())
    fewest = min(map(len, cells.values()))
    ratio = between / within if within else math.inf
    return Suitability(between, within, ratio, 1 / math.sqrt(fewest), len(cells), fewest)


def costs(arena: Arena, row: Row) -> dict[str, Any]:
    """What a row costs in an arena: medians over its cells; None where nothing is recorded."""
    cells = arena.cells_of(row)
    counted = next((cell.part("cost") for cell in cells if cell.part("cost")), {})
    training = [cell.part("training") for cell in cells if cell.part("training").get("seconds_per_epoch")]
    prediction = [cell.part("prediction") for cell in cells if cell.part("prediction").get("seconds_per_case")]
    return {
        "label": row.label,
        "parameters": counted.get("parameters"),
        "flops": counted.get("flops"),
        "scan_flops": counted.get("scan_flops"),
        "uncounted": counted.get("uncounted") or [],
        "input_shape": counted.get("input_shape"),
        "seconds_per_epoch": _median(item.get("seconds_per_epoch") for item in training),
        "training_seconds": _median(item.get("seconds") for item in training),
        "peak_memory_bytes": max((item["peak_memory_bytes"] for item in training if item.get("peak_memory_bytes")),
                                 default=None),
        "peak_memory_what": ", ".join(sorted({item["peak_memory_what"] for item in training
                                              if item.get("peak_memory_what")})),
        "seconds_per_case": _median(item.get("seconds_per_case") for item in prediction),
        "epochs": _only(item.get("epochs") for item in training),
        "iterations_per_epoch": _only(item.get("iterations_per_epoch") for item in training),
        "batch_size": _only(item.get("batch_size") for item in training),
        "patch_size": _only(tuple(item["patch_size"]) for item in training if item.get("patch_size")),
        "devices": ", ".join(sorted({str(item.get("device_name") or item.get("device")) for item in training})),
        "n_cells": len(training),
    }  # fmt: skip


def _only(values: Any) -> Any:
    """The value all have, None where they differ or none has one."""
    found = {value for value in values if value is not None}
    return found.pop() if len(found) == 1 else None


def _median(values: Any) -> float | None:
    found = [float(value) for value in values if value is not None]
    return statistics.median(found) if found else None


def _mean(classes: Mapping[str, Statistic]) -> float:
    return classes[ALL_CLASSES].mean if ALL_CLASSES in classes else math.nan


def _sd(values: Any) -> float:
    found = [value for value in values if not math.isnan(value)]
    return statistics.stdev(found) if len(found) > 1 else math.nan
