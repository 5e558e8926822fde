"""Paired comparisons over cases: Wilcoxon's signed-rank test, Holm's correction, the rank-biserial effect size, and how
many cases or seeds would settle what is open."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from swin_umamba_nnunet.benchmark.report.collect import Arena, lower_is_better, mean_of_class_means
from swin_umamba_nnunet.evaluation.statistics import Bootstrap, interval_of_finite, std_of_finite

ALPHA = 0.05
POWER, SIMULATIONS, AT_MOST = 0.8, 200, 20  # wanted; draws of each size; times the cases there are, and seeds
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
        p_holm: the same after Holm's correction over the rows of its family on this dataset and metric.
        tests: how many these are: all planned trainers, so that p_holm can only fall when others are scored, or the
            observers there are.
        p_least: the smallest `p_holm` that so many pairs can give, were the row better (or worse) in all of them.
        difference: of the two means (mean of class means) over the cases that both were scored on.
        seed_sd: the larger of the two standard deviations over seeds; NaN below two seeds.
        n_seeds: seeds that both have in full.
        n_seeds_better: of them, in how many the row's mean is better.
        gain, loss: median size of the differences of the cases that are better, and of those that are worse.
        n_lost, n_lost_baseline: pairs in which only the row's value is infinite, and in which only the baseline's is.
        cases_needed, seeds_needed: see `cases_needed` and `seeds_needed`.
        family: "trainers", or "observers": a human on the same cases asks another question, and takes no power from the
            trainers' tests.
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
    gain: float = math.nan
    loss: float = math.nan
    n_lost: int = 0
    n_lost_baseline: int = 0
    cases_needed: float = math.nan
    seeds_needed: float = math.nan
    tests: int = 0
    family: str = "trainers"

    @property
    def clear(self) -> bool:
        """Whether the test shows a difference."""
        return self.p_holm < ALPHA

    @property
    def hopeless(self) -> bool:
        """Whether it could not show any with so few cases."""
        return math.isnan(self.p) or self.p_least > ALPHA


def compare(arena: Arena, metric: str, baseline: str, bootstrap: Bootstrap) -> list[Comparison]:
    """Every other row of an arena against the baseline; rows without any score are left out.

    Args:
        arena: where.
        metric: which.
        baseline: label of its row.
        bootstrap: of the median's interval.
    """
    values, means = arena.per_case(metric), means_of(arena, metric, "seed")
    if not values[baseline].notna().any():
        return []
    families = {row.label: "observers" if row.human else "trainers" for row in arena.rows if row.label != baseline}
    sign = -1.0 if lower_is_better(metric) else 1.0
    found = []
    for row, family in families.items():
        if not values[row].notna().any():
            continue
        ours, theirs = values[[row, baseline]].dropna(how="all").to_numpy(float).T
        own, other = means[row], means[baseline]
        gaps = [sign * (own[seed] - other[seed]) for seed in own if seed in other]
        common = arena.cases_of(row) & arena.cases_of(baseline)
        frames = (arena.values(metric, name) for name in (row, baseline))
        mean, than = (mean_of_class_means(frame[frame["case"].isin(common)]) for frame in frames)
        spread = float(np.fmax(std_of_finite(own.values()), std_of_finite(other.values())))
        tests, cases, seeds = [*families.values()].count(family), math.nan, math.nan
        if metric == arena.metric:
            cases = cases_needed(_differences(ours, theirs), tests, bootstrap.seed)
            seeds = seeds_needed(mean - than, spread if own and other else math.nan, bootstrap.seed)
        item = replace(
            compare_values(row, baseline, metric, ours, theirs, bootstrap),
            difference=mean - than,
            seed_sd=spread,
            n_seeds=len(gaps),
            n_seeds_better=sum(gap > 0 for gap in gaps),
            cases_needed=cases,
            seeds_needed=seeds,
            tests=tests,
            family=family,
        )
        found.append(item)
    return correct(found)


def compare_values(
    row: str, baseline: str, metric: str, ours: np.ndarray, theirs: np.ndarray, bootstrap: Bootstrap
) -> Comparison:
    """One comparison of paired values (N,), not yet corrected for others."""
    differences = _differences(ours, theirs)
    pairs = differences[~np.isnan(differences)]
    improved = -pairs if lower_is_better(metric) else pairs
    usable = len(pairs) > 1 and np.isfinite(pairs).all()  # infinite ones count with their sign, in the median alone
    low, high = interval_of_finite(bootstrap.medians(pairs) if usable else np.empty(0))
    gains, losses = improved[improved > 0], -improved[improved < 0]
    return Comparison(
        row,
        baseline,
        metric,
        n_pairs=len(pairs),
        n_better=len(gains),
        n_worse=len(losses),
        n_tied=len(pairs) - len(gains) - len(losses),
        n_left_out=len(differences) - len(pairs),
        median=_median(pairs),
        low=low,
        high=high,
        effect=rank_biserial(improved),
        p=signed_rank_p(pairs),
        gain=_median(gains),
        loss=_median(losses),
        n_lost=int((np.isinf(ours) & np.isfinite(theirs)).sum()),
        n_lost_baseline=int((np.isfinite(ours) & np.isinf(theirs)).sum()),
    )


def correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Holm's correction within each family as planned, and the least p each comparison could have reached."""
    found = {}
    for family in {item.family for item in comparisons}:
        tested = [item for item in comparisons if item.family == family and not math.isnan(item.p)]
        tests = max([len(tested), *(item.tests for item in tested)])
        reached, reachable = (
            holm(values, tests) for values in ([item.p for item in tested], [least_p(item.n_pairs) for item in tested])
        )
        for item, p_holm, p_least in zip(tested, reached, reachable):
            found[item.row] = replace(item, p_holm=p_holm, p_least=p_least)
    return [found.get(item.row, item) for item in comparisons]


def holm(p_values: Sequence[float], tests: int) -> list[float]:
    """Holm's step-down adjustment (Scandinavian Journal of Statistics 6, 1979) of the p values there are of m tests, as
    if the others were 1: the i-th smallest is multiplied by m - i + 1, none may fall below the one before it, and none
    exceeds 1."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (tests - position) * float(p_values[index])))
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


def cases_needed(differences: np.ndarray, tests: int, seed: int) -> float:
    """How many cases like these would show a difference, by simulation.

    Takes the observed differences for those of all cases there are: draws as many of them as there are, half as many
    more and so on, and tests each draw (signed-rank test by its normal approximation, at `ALPHA` over the number of
    tests, which Holm's correction is no stricter than).

    Args:
        differences: of the pairs (N,), rounded as in `_differences`.
        tests: number of comparisons that are planned.
        seed: of the draws.

    Returns:
        The first number of cases at which a share of `POWER` of the draws shows it; infinity where `AT_MOST` times the
        cases are too few, NaN where there is nothing to draw from.
    """
    pairs = _finite_of_same_ranks(differences[~np.isnan(differences)])
    generator = np.random.default_rng(seed)

    def shown(size: int) -> np.ndarray:
        drawn = pairs[generator.integers(len(pairs), size=(SIMULATIONS, size))]
        signed = stats.rankdata(np.abs(drawn), axis=1) * np.sign(drawn)
        spread = np.sqrt(np.maximum((signed**2).sum(axis=1), 1.0))
        p = 2 * stats.norm.sf(np.abs(signed.sum(axis=1)) / spread)
        return np.maximum(p, least_p(size)) < ALPHA / tests

    sizes = (round(len(pairs) * min(1.5**step, AT_MOST)) for step in range(9))
    return _first(sizes, shown) if len(pairs) > 1 else math.nan


def seeds_needed(difference: float, spread: float, seed: int) -> float:
    """How many trainings of each row would show that the recipes differ: t-tests of means of seeds, drawn from normal
    distributions that lie `difference` apart and have the standard deviation `spread` over seeds; as `cases_needed`."""
    generator = np.random.default_rng(seed)

    def shown(size: int) -> np.ndarray:
        drawn = generator.normal(size=(2, SIMULATIONS, size)) * spread
        return stats.ttest_ind(drawn[0] + difference, drawn[1], axis=1).pvalue < ALPHA

    return _first(range(2, AT_MOST + 1), shown) if difference and spread > 0 else math.nan


def _first(sizes: Iterable[int], shown: Callable[[int], np.ndarray]) -> float:
    return float(next((size for size in sizes if shown(size).mean() >= POWER), math.inf))


def means_of(arena: Arena, metric: str, part: str) -> dict[str, dict[int | str, float]]:
    """Label -> seed or fold -> mean of class means.

    Args:
        arena: where.
        metric: which.
        part: "seed", each over the cases of all folds, only seeds whose folds are all done, none of an observer; or
            "fold", each over its seeds averaged per case, only folds of which a seed is done.
    """
    found: dict[str, dict[int | str, float]] = {}
    for row in arena.rows:
        frame = arena.values(metric, row.label)
        done: dict[int | str, list[bool]] = {}
        for run in arena.runs_of(row.label) if part == "fold" or not row.human else ():
            done.setdefault(getattr(run, part), []).append(run.done)
        whole = all if part == "seed" else any
        found[row.label] = {
            key: mean_of_class_means(frame[frame[part] == key]) for key, runs in done.items() if whole(runs)
        }
    return found


def _differences(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Of two rows' values (N,); NaN where both are infinite."""
    with np.errstate(invalid="ignore"):
        return np.round(ours - theirs, _DIGITS)


def _median(values: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):  # between plus and minus infinity
        return float(np.median(values)) if len(values) else math.nan


def _finite_of_same_ranks(values: np.ndarray) -> np.ndarray:
    infinite = np.isinf(values)
    largest = np.abs(values[~infinite]).max(initial=0.0)
    return np.where(infinite, np.sign(values) * (largest + 1.0), values)
