"""Statistics over cases: mean, standard deviation, bootstrap interval; undefined and infinite values counted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from swin_umamba_nnunet.evaluation.records import ALL_CLASSES, WHOLE_IMAGE, Measurement, Statistic

RESAMPLES = 10_000
INTERVAL = (2.5, 97.5)  # percentiles: 95 %
BEST_IS_ONE = ("Dice", "IoU", "NSD", "F1")  # metrics whose undefined values some papers count as 1
_CHUNK = 500  # resamples at a time, so that memory does not grow with their number


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        resamples: how often the cases are drawn anew (with replacement).
        seed: of the draws; the same seed gives the same intervals.
    """

    resamples: int = RESAMPLES
    seed: int = 0

    def sums(self, columns: np.ndarray) -> np.ndarray:
        """Sums over each resample of the cases: (N, K) -> (resamples, K)."""
        n_cases = len(columns)
        generator = np.random.default_rng(self.seed)
        parts = []
        for start in range(0, self.resamples, _CHUNK):
            size = min(_CHUNK, self.resamples - start)
            parts.append(generator.multinomial(n_cases, np.full(n_cases, 1 / n_cases), size=size) @ columns)
        return np.concatenate(parts)

    def means(self, columns: np.ndarray) -> np.ndarray:
        """Means of the finite values over each resample: (N, K) -> (resamples, K); NaN where it has none."""
        finite = np.isfinite(columns)
        sums = self.sums(np.concatenate([np.where(finite, columns, 0.0), finite.astype(float)], axis=1))
        total, count = np.split(sums, 2, axis=1)
        return _ratio(total, count)

    def medians(self, values: np.ndarray) -> np.ndarray:
        """Medians of the finite values over each resample: (N,) -> (resamples,)."""
        finite = values[np.isfinite(values)]
        generator = np.random.default_rng(self.seed)
        parts = []
        for start in range(0, self.resamples, _CHUNK):
            size = min(_CHUNK, self.resamples - start)
            parts.append(np.median(finite[generator.integers(finite.size, size=(size, finite.size))], axis=1))
        return np.concatenate(parts)


def class_statistics(measurements: Sequence[Measurement], bootstrap: Bootstrap) -> list[Statistic]:
    """Statistics per convention, metric and class, and over all classes where there are several.

    A metric over all classes is the mean of its class means (each over its own finite values); its standard deviation
    is that of the cases' own means over their classes.  Values of whole images
    (`WHOLE_IMAGE`) are a row of their own and take no part in that.  Counts are left out.
    """
    cases = sorted({measurement.case for measurement in measurements})
    columns, heads = _columns([m for m in measurements if not m.count], cases)
    if not heads:
        return []
    resampled = bootstrap.means(columns) if len(cases) > 1 else np.full((1, len(heads)), np.nan)
    result = []
    groups: dict[tuple[str, str], list[int]] = {}
    for index, head in enumerate(heads):
        groups.setdefault((head.convention, head.metric), []).append(index)
    for members in groups.values():
        members.sort(key=lambda index: _rank(heads[index].label))
        for index in members:
            result.append(_one_class(heads[index], columns[:, index], resampled[:, index]))
        classes = [index for index in members if heads[index].label != WHOLE_IMAGE]
        if len(classes) > 1:
            whole = any(heads[index].label == WHOLE_IMAGE for index in members)
            if not whole:
                result.append(_all_classes([heads[i] for i in classes], columns[:, classes], resampled[:, classes]))
    return result


def pooled_statistic(
    head: Measurement,
    numerators: Sequence[float] | np.ndarray,
    denominators: Sequence[float] | np.ndarray,
    bootstrap: Bootstrap,
    how: str,
    empty: float = math.nan,
) -> Statistic:
    """A ratio of sums over cases, such as the Dice of all pixels of all images together.

    Args:
        head: names, unit and convention (its value and case are not looked at).
        numerators, denominators: one per case.
        bootstrap: cases are resampled.
        how: what was pooled.
        empty: the value where all denominators are 0.
    """
    pair = np.stack([np.asarray(numerators, float), np.asarray(denominators, float)], axis=1)
    total = pair.sum(axis=0)
    value = float(total[0] / total[1]) if total[1] else empty
    low = high = math.nan
    if len(pair) > 1:
        sums = bootstrap.sums(pair)
        low, high = _interval(_ratio(sums[:, 0], sums[:, 1]))
    undefined = int((pair[:, 1] == 0).sum())
    return Statistic(
        head.convention, head.metric, head.label, head.unit, value, math.nan, low, high, len(pair), undefined, 0,
        detail=head.detail, how=how,
    )  # fmt: skip


def pooled_object_f1(measurements: Sequence[Measurement], bootstrap: Bootstrap) -> list[Statistic]:
    """F1 of the objects of all cases together, per convention, class and threshold that has F1@... values."""
    result = []
    series: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    heads: dict[tuple[str, str, str], Measurement] = {}
    for measurement in measurements:
        metric, at, threshold = measurement.metric.partition("@")
        if at and metric in ("F1", "TP", "FP", "FN"):
            key = (measurement.convention, measurement.label, threshold)
            series.setdefault(key, {}).setdefault(metric, []).append(measurement.value)
            if metric == "F1":
                heads[key] = measurement
    for key, head in heads.items():
        tp, fp, fn = (np.asarray(series[key][name], float) for name in ("TP", "FP", "FN"))
        row = replace(head, metric=f"{head.metric} (pooled)")
        result.append(pooled_statistic(row, 2 * tp, 2 * tp + fp + fn, bootstrap, "objects of all cases together"))
    return result


def median_statistic(head: Measurement, values: Sequence[float], bootstrap: Bootstrap) -> Statistic:
    """The median over cases as a row of its own; `mean` holds the median."""
    array = np.asarray(values, float)
    finite = array[np.isfinite(array)]
    low = high = math.nan
    if finite.size > 1:
        low, high = _interval(bootstrap.medians(array))
    return Statistic(
        head.convention, f"{head.metric} (median)", head.label, head.unit,
        float(np.median(finite)) if finite.size else math.nan, math.nan, low, high,
        array.size, int(np.isnan(array).sum()), int(np.isinf(array).sum()), detail=head.detail,
        how="median over cases",
    )  # fmt: skip


@dataclass(frozen=True)
class _Column:
    """Names of one column, and which cases have a value in it."""

    convention: str
    metric: str
    label: str
    unit: str
    detail: str
    present: np.ndarray


def _columns(measurements: Sequence[Measurement], cases: list[str]) -> tuple[np.ndarray, list[_Column]]:
    """Values (N, K): NaN where undefined or absent; and the K heads in order of first appearance."""
    row = {case: index for index, case in enumerate(cases)}
    values: dict[tuple[str, str, str], np.ndarray] = {}
    first: dict[tuple[str, str, str], Measurement] = {}
    present: dict[tuple[str, str, str], np.ndarray] = {}
    for measurement in measurements:
        key = (measurement.convention, measurement.metric, measurement.label)
        if key not in values:
            values[key], present[key] = np.full(len(cases), np.nan), np.zeros(len(cases), bool)
            first[key] = measurement
        values[key][row[measurement.case]] = measurement.value
        present[key][row[measurement.case]] = True
    heads = [_Column(*key, first[key].unit, first[key].detail, present[key]) for key in values]
    return np.stack(list(values.values()), axis=1) if values else np.empty((len(cases), 0)), heads


def _one_class(head: _Column, column: np.ndarray, resampled: np.ndarray) -> Statistic:
    finite = column[np.isfinite(column)]
    mean, std = _mean(finite), _std(finite)
    n_cases = int(head.present.sum())
    n_undefined = int((np.isnan(column) & head.present).sum())
    low, high = _interval(resampled) if finite.size > 1 else (math.nan, math.nan)
    as_one = math.nan
    if n_undefined and _best_is_one(head.metric):
        as_one = _mean(np.where(np.isnan(column), 1.0, column)[head.present])
    return Statistic(
        head.convention, head.metric, head.label, head.unit, mean, std, low, high, n_cases, n_undefined,
        int(np.isinf(column).sum()), as_one, head.detail,
    )  # fmt: skip


def _all_classes(heads: list[_Column], columns: np.ndarray, resampled: np.ndarray) -> Statistic:
    singles = [_one_class(head, columns[:, i], resampled[:, i]) for i, head in enumerate(heads)]
    class_means = np.array([single.mean for single in singles])
    finite = np.where(np.isfinite(columns), columns, np.nan)
    case_means = np.array([_mean(row[~np.isnan(row)]) for row in finite])
    several = int((~np.isnan(case_means)).sum()) > 1
    low, high = _interval(_rowwise_mean(resampled)) if several else (math.nan, math.nan)
    as_one = math.nan
    if any(single.n_undefined for single in singles) and _best_is_one(heads[0].metric):
        as_one = _mean(np.array([s.mean_undefined_as_1 if s.n_undefined else s.mean for s in singles]))
    details = {head.detail for head in heads}
    return Statistic(
        heads[0].convention, heads[0].metric, ALL_CLASSES, heads[0].unit,
        _mean(class_means[~np.isnan(class_means)]), _std(case_means[~np.isnan(case_means)]), low, high,
        int(np.any([head.present for head in heads], axis=0).sum()),
        sum(single.n_undefined for single in singles), sum(single.n_infinite for single in singles), as_one,
        details.pop() if len(details) == 1 else "tolerance per class",
        "mean of class means",
    )  # fmt: skip


def _rank(label: str) -> tuple[int, int]:
    """Numbers in their order, names as they come, the whole image last."""
    if label == WHOLE_IMAGE:
        return 2, 0
    return (0, int(label)) if label.isdecimal() else (1, 0)


def _best_is_one(metric: str) -> bool:
    return metric.split("@")[0] in BEST_IS_ONE


def _ratio(numerator, denominator) -> np.ndarray:
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


def _rowwise_mean(rows: np.ndarray) -> np.ndarray:
    finite = np.isfinite(rows)
    return _ratio(np.where(finite, rows, 0.0).sum(axis=1), finite.sum(axis=1))


def _interval(resampled: np.ndarray) -> tuple[float, float]:
    finite = resampled[np.isfinite(resampled)]
    if not finite.size:
        return math.nan, math.nan
    low, high = np.percentile(finite, INTERVAL)
    return float(low), float(high)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def _std(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if values.size > 1 else math.nan
