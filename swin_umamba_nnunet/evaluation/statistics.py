"""Statistics over cases: mean, standard deviation, bootstrap interval; undefined and infinite values counted."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from swin_umamba_nnunet.evaluation.records import ALL_CLASSES, WHOLE_IMAGE, Measurement, Statistic, by_name

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

    def _resampled(self, draw: Callable[[np.random.Generator, int], np.ndarray]) -> np.ndarray:
        generator = np.random.default_rng(self.seed)
        sizes = (min(_CHUNK, self.resamples - start) for start in range(0, self.resamples, _CHUNK))
        return np.concatenate([draw(generator, size) for size in sizes])

    def sums(self, columns: np.ndarray) -> np.ndarray:
        """Sums over each resample of the cases: (N, K) -> (resamples, K)."""
        n = len(columns)
        return self._resampled(lambda generator, size: generator.multinomial(n, np.full(n, 1 / n), size) @ columns)

    def means(self, columns: np.ndarray) -> np.ndarray:
        """Means of the finite values over each resample: (N, K) -> (resamples, K); NaN where it has none."""
        finite = np.isfinite(columns)
        sums = self.sums(np.concatenate([np.where(finite, columns, 0.0), finite.astype(float)], axis=1))
        return ratio(*np.split(sums, 2, axis=1))

    def medians(self, values: np.ndarray) -> np.ndarray:
        """Medians over each resample: (N,) -> (resamples,)."""
        n = values.size
        return self._resampled(lambda generator, size: np.median(values[generator.integers(n, size=(size, n))], axis=1))


def class_statistics(measurements: Sequence[Measurement], bootstrap: Bootstrap) -> list[Statistic]:
    """Statistics per convention, metric and class, and over all classes where there are several.

    A metric over all classes is the mean of its class means (each over its own finite values); its standard deviation
    is that of the cases' own means over their classes.  Values of whole images
    (`WHOLE_IMAGE`) are a row of their own and take no part in that.  Counts are left out.
    """
    cases = {case: row for row, case in enumerate(sorted({m.case for m in measurements}))}
    columns = by_name(m for m in measurements if not m.count)
    if not columns:
        return []
    values = np.full((len(cases), len(columns)), np.nan)
    for index, column in enumerate(columns.values()):
        values[[cases[m.case] for m in column], index] = [m.value for m in column]
    resampled = bootstrap.means(values) if len(cases) > 1 else np.full((1, len(columns)), np.nan)
    groups: dict[tuple[str, str], list[int]] = {}
    for index, (convention, metric, _) in enumerate(columns):
        groups.setdefault((convention, metric), []).append(index)
    heads, result = list(columns.values()), []
    for members in groups.values():
        members.sort(key=lambda index: _rank(heads[index][0].label))
        rows = [_one_class(heads[index], resampled[:, index]) for index in members]
        result += rows
        if len(rows) > 1 and rows[-1].label != WHOLE_IMAGE:
            n_cases = len({m.case for index in members for m in heads[index]})
            result.append(_all_classes(rows, values[:, members], resampled[:, members], n_cases))
    return result


def pooled_statistic(
    head: Measurement,
    numerators: np.ndarray,
    denominators: np.ndarray,
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
    pair = np.array([numerators, denominators], float).T
    numerator, denominator = pair.sum(axis=0).tolist()
    value = numerator / denominator if denominator else empty
    sums = bootstrap.sums(pair) if len(pair) > 1 else np.zeros((1, 2))
    return _statistic(head, ratio(*pair.T), value, ratio(*sums.T), how=how)


def pooled_object_f1(measurements: Sequence[Measurement], bootstrap: Bootstrap) -> list[Statistic]:
    """F1 of the objects of all cases together, per convention, class and threshold that has F1@... values."""
    series, result = by_name(measurements), []
    for (convention, metric, label), found in series.items():
        if metric.startswith("F1@"):
            tp, fp, fn = (
                np.array([m.value for m in series[convention, f"{name}{metric[2:]}", label]], float)
                for name in ("TP", "FP", "FN")
            )
            head = replace(found[0], metric=f"{metric} (pooled)")
            result.append(pooled_statistic(head, 2 * tp, 2 * tp + fp + fn, bootstrap, "objects of all cases together"))
    return result


def median_statistic(head: Measurement, values: Sequence[float], bootstrap: Bootstrap) -> Statistic:
    """The median over cases as a row of its own; `mean` holds the median."""
    array = np.asarray(values, float)
    finite = array[np.isfinite(array)]
    median = float(np.median(finite)) if finite.size else math.nan
    resampled = bootstrap.medians(finite) if finite.size > 1 else np.empty(0)
    return _statistic(
        replace(head, metric=f"{head.metric} (median)"), array, median, resampled, how="median over cases"
    )


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their quotient, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


def _finite(values: Iterable[float]) -> np.ndarray:
    array = np.fromiter(values, float)
    return array[np.isfinite(array)]


def mean_of_finite(values: Iterable[float]) -> float:
    """Mean of the values that are neither NaN nor infinite; NaN where there are none."""
    finite = _finite(values)
    return float(finite.mean()) if finite.size else math.nan


def std_of_finite(values: Iterable[float]) -> float:
    """Sample standard deviation of the values that are neither NaN nor infinite; NaN where they are fewer than two."""
    finite = _finite(values)
    return float(finite.std(ddof=1)) if finite.size > 1 else math.nan


def interval_of_finite(resampled: np.ndarray) -> tuple[float, float]:
    """Where 95 % of the finite values (N,) lie; NaN where there are none."""
    finite = _finite(resampled)
    low, high = np.percentile(finite, INTERVAL) if finite.size else (math.nan, math.nan)
    return float(low), float(high)


def _statistic(
    head: Measurement,
    values: np.ndarray,
    mean: float,
    resampled: np.ndarray,
    std: float = math.nan,
    as_one: float = math.nan,
    how: str = "",
) -> Statistic:
    """A row of the table: the head's names, the interval of what was resampled, and how many values (N,) were what."""
    return Statistic(
        head.convention,
        head.metric,
        head.label,
        head.unit,
        mean,
        std,
        *interval_of_finite(resampled),
        len(values),
        int(np.isnan(values).sum()),
        int(np.isinf(values).sum()),
        as_one,
        head.detail,
        how,
    )


def _one_class(column: Sequence[Measurement], resampled: np.ndarray) -> Statistic:
    values = np.array([m.value for m in column], float)
    undefined, as_one = np.isnan(values), math.nan
    if undefined.any() and _best_is_one(column[0].metric):
        as_one = mean_of_finite(np.where(undefined, 1.0, values))
    draws = resampled if np.isfinite(values).sum() > 1 else np.empty(0)
    return _statistic(column[0], values, mean_of_finite(values), draws, std_of_finite(values), as_one)


def _all_classes(rows: Sequence[Statistic], values: np.ndarray, resampled: np.ndarray, n_cases: int) -> Statistic:
    """Over the classes of one metric: their rows, values (N, K) and means over each resample (resamples, K)."""
    case_means = np.array([mean_of_finite(row) for row in values])
    finite = np.isfinite(resampled)
    draws = ratio(np.where(finite, resampled, 0.0).sum(axis=1), finite.sum(axis=1))
    low, high = interval_of_finite(draws if np.isfinite(case_means).sum() > 1 else np.empty(0))
    n_undefined, as_one = sum(row.n_undefined for row in rows), math.nan
    if n_undefined and _best_is_one(rows[0].metric):
        as_one = mean_of_finite(row.mean_undefined_as_1 if row.n_undefined else row.mean for row in rows)
    return replace(
        rows[0],
        label=ALL_CLASSES,
        mean=mean_of_finite(row.mean for row in rows),
        std=std_of_finite(case_means),
        low=low,
        high=high,
        n_cases=n_cases,
        n_undefined=n_undefined,
        n_infinite=sum(row.n_infinite for row in rows),
        mean_undefined_as_1=as_one,
        detail=rows[0].detail if len({row.detail for row in rows}) == 1 else "tolerance per class",
        how="mean of class means",
    )


def _rank(label: str) -> tuple[int, int]:
    """Numbers in their order, names as they come, the whole image last."""
    if label == WHOLE_IMAGE:
        return 2, 0
    return (0, int(label)) if label.isdecimal() else (1, 0)


def _best_is_one(metric: str) -> bool:
    return metric.split("@")[0] in BEST_IS_ONE
