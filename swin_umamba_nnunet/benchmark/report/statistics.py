"""Paired comparisons over cases: Wilcoxon's signed-rank test, Holm's correction, the rank-biserial effect size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from swin_umamba_nnunet.benchmark.report.arenas import Arena, lower_is_better, mean_of_class_means
from swin_umamba_nnunet.evaluation.statistics import INTERVAL, Bootstrap

ALPHA = 0.05
_DIGITS = 12  # beyond which differences of averages are rounding


@dataclass(frozen=True)
class Comparison:
    """A row against the baseline, over the cases both were scored on, runs averaged per case.

    Attributes:
        row, baseline: labels.
        metric: compared.
        n_pairs: cases with a value for both.
        n_better, n_worse, n_tied: of them, for the row (a smaller distance is better).
        n_left_out: cases in which only one of the two has a value, or both are infinite.
        median, low, high: of the differences row - baseline, with a 95 % percentile-bootstrap interval over cases.
        effect: matched-pairs rank-biserial correlation, -1 to 1, above 0 where the row is better.
        p: two-sided, of the signed-rank test; NaN below two pairs.
        p_holm: the same after Holm's correction over the rows compared on this dataset and metric.
        p_least: the smallest `p_holm` that so many pairs can give, were the row better (or worse) in all of them.
        difference: of the two means (mean of class means).
        seed_sd: the larger of the two standard deviations over seeds; NaN below two seeds.
        n_seeds: seeds that both have in full.
        n_seeds_better: of them, in how many the row's mean is better.
    """

    row: str
    baseline: str
    metric: str
    n_pairs: int
    n_better: int
    n_worse: int
    n_tied: int
    n_left_out: int
    median: float
    low: float
    high: float
    effect: float
    p: float
    p_holm: float = math.nan
    p_least: float = math.nan
    difference: float = math.nan
    seed_sd: float = math.nan
    n_seeds: int = 0
    n_seeds_better: int = 0


def compare(arena: Arena, metric: str, baseline: str, bootstrap: Bootstrap) -> list[Comparison]:
    """Every other row of an arena against the baseline; rows without any score are left out.

    Args:
        arena: where.
        metric: which.
        baseline: label of its row.
        bootstrap: of the median's interval.
    """
    values = arena.per_case(metric)
    means = seed_means(arena, metric)
    rows = [row.label for row in arena.rows if row.label != baseline and values[row.label].notna().any()]
    if not values[baseline].notna().any():
        return []
    sign = -1.0 if lower_is_better(metric) else 1.0
    found = []
    for row in rows:
        pair = values[row].to_numpy(float), values[baseline].to_numpy(float)
        there = ~(np.isnan(pair[0]) & np.isnan(pair[1]))
        single = compare_values(row, baseline, metric, pair[0][there], pair[1][there], bootstrap)
        common = [seed for seed in means[row] if seed in means[baseline]]
        gaps = [sign * (means[row][seed] - means[baseline][seed]) for seed in common]
        spreads = [_sd(list(means[name].values())) for name in (row, baseline)]
        overall = [mean_of_class_means(_of(arena, metric, name)) for name in (row, baseline)]
        found.append(replace(
            single, difference=overall[0] - overall[1], seed_sd=max(spreads, key=_nan_last), n_seeds=len(gaps),
            n_seeds_better=sum(gap > 0 for gap in gaps),
        ))  # fmt: skip
    return correct(found)


def compare_values(
    row: str, baseline: str, metric: str, ours: np.ndarray, theirs: np.ndarray, bootstrap: Bootstrap
) -> Comparison:
    """One comparison of paired values (N,), not yet corrected for others."""
    with np.errstate(invalid="ignore"):  # infinite on both sides
        differences = np.round(ours - theirs, _DIGITS)
    pairs = differences[~np.isnan(differences)]
    improved = -pairs if lower_is_better(metric) else pairs
    median, low, high = _median(pairs, bootstrap)
    return Comparison(
        row, baseline, metric, len(pairs), int((improved > 0).sum()), int((improved < 0).sum()),
        int((improved == 0).sum()), len(differences) - len(pairs), median, low, high,
        rank_biserial(improved), signed_rank_p(pairs),
    )  # fmt: skip


def correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Holm's correction over comparisons of one family, and the least p each could have reached."""
    tested = [item for item in comparisons if not math.isnan(item.p)]
    adjusted = dict(zip((item.row for item in tested), holm([item.p for item in tested])))
    least = [least_p(item.n_pairs) for item in tested]
    return [
        replace(item, p_holm=adjusted[item.row], p_least=max(least_p(item.n_pairs), min(1.0, len(tested) * min(least))))
        if item.row in adjusted else item
        for item in comparisons
    ]  # fmt: skip


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Scandinavian Journal of Statistics 6, 1979): the i-th smallest of m is multiplied
    by m - i + 1, none may fall below the one before it, and none exceeds 1."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - position) * float(p_values[index])))
        adjusted[index] = largest
    return adjusted


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, by SciPy; differences of 0 are left out.

    The exact distribution is used for up to 50 differences without ties, else SciPy's choice.  Infinite differences
    rank above all finite ones.  1 where all are 0; NaN below two differences.
    """
    if len(differences) < 2:
        return math.nan
    ranked = _finite_of_same_ranks(differences[differences != 0])
    if not len(ranked):
        return 1.0
    return float(stats.wilcoxon(ranked, zero_method="wilcox", alternative="two-sided", method="auto").pvalue)


def rank_biserial(improved: np.ndarray) -> float:
    """Matched-pairs rank-biserial correlation: (R+ - R-) / (R+ + R-) of the rank sums of positive and negative
    differences, those of 0 left out (Kerby 2014, doi 10.2466/11.IT.3.1); 0 where all are 0, NaN below two."""
    if len(improved) < 2:
        return math.nan
    nonzero = _finite_of_same_ranks(improved[improved != 0])
    if not len(nonzero):
        return 0.0
    ranks = stats.rankdata(np.abs(nonzero))
    return float((ranks * np.sign(nonzero)).sum() / ranks.sum())


def least_p(n: int) -> float:
    """The smallest two-sided p of the signed-rank test with n pairs: all of them differ in one direction."""
    return min(1.0, 2.0 * 0.5**n)


def seed_means(arena: Arena, metric: str) -> dict[str, dict[int, float]]:
    """Label -> seed -> mean of class means over the cases of all folds; only seeds whose folds are all done."""
    found: dict[str, dict[int, float]] = {}
    for row in arena.rows:
        frame, cells = _of(arena, metric, row.label), arena.cells_of(row)
        seeds = [seed for seed in dict.fromkeys(cell.seed for cell in cells)
                 if all(cell.done for cell in cells if cell.seed == seed)]  # fmt: skip
        found[row.label] = {seed: mean_of_class_means(frame[frame["seed"] == seed]) for seed in seeds}
    return found


def fold_means(arena: Arena, metric: str) -> dict[str, dict[str, float]]:
    """Label -> fold -> mean of class means, its seeds averaged per case; only folds of which a seed is done."""
    found: dict[str, dict[str, float]] = {}
    for row in arena.rows:
        frame = _of(arena, metric, row.label)
        folds = dict.fromkeys(cell.fold for cell in arena.cells_of(row) if cell.done)
        found[row.label] = {fold: mean_of_class_means(frame[frame["fold"] == fold]) for fold in folds}
    return found


def cell_means(arena: Arena, metric: str) -> dict[str, list[float]]:
    """Label -> mean of class means of each of its cells that are done."""
    means: dict[str, list[float]] = {row.label: [] for row in arena.rows}
    for cell in arena.done:
        means[cell.row.label].append(mean_of_class_means(cell.scores[cell.scores["metric"] == metric]))
    return means


def _of(arena: Arena, metric: str, label: str):
    values = arena.values(metric)
    return values[values["row"] == label]


def _median(pairs: np.ndarray, bootstrap: Bootstrap) -> tuple[float, float, float]:
    """Median and its interval; infinite differences count with their sign."""
    if not len(pairs):
        return math.nan, math.nan, math.nan
    with np.errstate(invalid="ignore"):  # between plus and minus infinity
        median = float(np.median(pairs))
    if len(pairs) < 2 or not np.isfinite(pairs).all():
        return median, math.nan, math.nan
    low, high = np.percentile(bootstrap.medians(pairs), INTERVAL)
    return median, float(low), float(high)


def _finite_of_same_ranks(values: np.ndarray) -> np.ndarray:
    infinite = np.isinf(values)
    largest = np.abs(values[~infinite]).max(initial=0.0)
    return np.where(infinite, np.sign(values) * (largest + 1.0), values)


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _nan_last(value: float) -> float:
    return -math.inf if math.isnan(value) else value
