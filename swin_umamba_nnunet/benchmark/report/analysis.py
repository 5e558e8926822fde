"""All numbers of a report, computed once and shown by page, CSV and LaTeX alike."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from swin_umamba_nnunet.benchmark import fairness
from swin_umamba_nnunet.benchmark.files import BenchmarkError, Record
from swin_umamba_nnunet.benchmark.report.collect import (
    Arena,
    Benchmark,
    Scored,
    lower_is_better,
    make_arenas,
    mean_of_class_means,
)
from swin_umamba_nnunet.benchmark.report.statistics import Comparison, compare, means_of
from swin_umamba_nnunet.evaluation.records import ALL_CLASSES, PLAIN, Measurement, Statistic
from swin_umamba_nnunet.evaluation.statistics import INTERVAL, Bootstrap, class_statistics, std_of_finite

METRICS = ("Dice", "NSD", "HD95")  # reported, as far as they were evaluated, where nobody asks for others
_NOTHING = Statistic(PLAIN, "", "", "1", math.nan, math.nan, math.nan, math.nan, 0, 0, 0)


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        metrics: names in metrics.csv; the first decides ranks, charts and pictures.  () for `METRICS`, as far as they
            were evaluated.
        baseline: label or trainer of the row the others are compared with; "" for that of the configuration, or else
            nnU-Net.
        published: show the papers' tables too.
        pictures: how many cases per dataset.
        bootstrap: of all intervals.
    """

    metrics: tuple[str, ...] = ()
    baseline: str = ""
    published: bool = False
    pictures: int = 3
    bootstrap: Bootstrap = field(default_factory=Bootstrap)


@dataclass(frozen=True)
class Summary:
    """One row in one metric.

    Attributes:
        label: of the row.
        mean: mean of class means, runs averaged per case; finite values only.
        low, high: 95 % percentile-bootstrap interval of it over cases, these trainings taken as given.
        sd_seeds, n_seeds: sample standard deviation of the means of seeds (each over all folds); NaN below two.
        sd_folds, n_folds: the same of the means of folds (each over its seeds), which also differ in their cases.
        n_cases: scored.
        n_values, n_undefined, n_infinite: single values (case x class x run), and how many are not in the means.
        done, planned: runs.
        comparable: scored on every case that any row was scored on.
        rank: among the comparable trainers, ties sharing the mean rank; NaN of others.
        rank_low, rank_high: where the rank lies in 95 % of the resamples of the cases.
    """

    label: str
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


@dataclass(frozen=True)
class Suitability:
    """Whether a dataset separates the methods at all (after nnU-Net Revisited, arXiv 2404.09556).

    Attributes:
        between: standard deviation of the rows' means.
        within: mean over rows of the standard deviation of a row's runs (folds and seeds).
        ratio: between / within.
        by_chance: the ratio to expect of rows that are all the same, 1/sqrt(runs per row), seeds and folds taken as
            independent.
        n_rows, n_runs: rows, and runs per row (the fewest).
    """

    between: float
    within: float
    ratio: float
    by_chance: float
    n_rows: int
    n_runs: int


@dataclass(frozen=True)
class Result(Arena):
    """An arena with its numbers, each computed once; mappings by metric, in the order they are shown.

    Attributes:
        baseline: label of the row that others are compared with.
        bootstrap: of all intervals.
    """

    baseline: str
    bootstrap: Bootstrap

    @cached_property
    def class_tables(self) -> dict[str, dict[str, dict[str, Statistic]]]:
        """Row's label -> class (`ALL_CLASSES` included) -> statistic over cases, runs averaged per case."""
        return {metric: {row.label: self._by_class(metric, row.label) for row in self.rows} for metric in self.metrics}

    def _by_class(self, metric: str, label: str) -> dict[str, Statistic]:
        lines, unit = self.over_runs(metric, label), self.unit(metric)
        measured = [
            Measurement(case, name, metric, value, unit, PLAIN)
            for case, name, value in zip(lines["case"], lines["class"], lines["value"])
        ]
        found = {item.label: item for item in class_statistics(measured, self.bootstrap)}
        if len(found) == 1:  # a single class is all classes
            (found[ALL_CLASSES],) = found.values()
        return found

    @cached_property
    def summaries(self) -> dict[str, list[Summary]]:
        """Of every row, in their order."""
        return {metric: self._summarise(metric) for metric in self.metrics}

    def _summarise(self, metric: str) -> list[Summary]:
        seeds, folds = (means_of(self, metric, part) for part in ("seed", "fold"))
        overall = {label: table.get(ALL_CLASSES, _NOTHING) for label, table in self.class_tables[metric].items()}
        means = {name: item.mean for name, item in overall.items() if self.ranked(name) and not math.isnan(item.mean)}
        ranks, found = self._ranks(metric, means), []
        for label, item in overall.items():
            runs, own = self.runs_of(label), self.values(metric, label)["value"].astype(float)
            found.append(
                Summary(
                    label,
                    item.mean,
                    item.low,
                    item.high,
                    std_of_finite(seeds[label].values()),
                    len(seeds[label]),
                    std_of_finite(folds[label].values()),
                    len(folds[label]),
                    len(self.cases_of(label)),
                    len(own),
                    int(own.isna().sum()),
                    int(np.isinf(own).sum()),
                    sum(run.done for run in runs),
                    len(runs),
                    self.comparable(label),
                    *ranks.get(label, ()),
                )
            )
        return found

    def _ranks(self, metric: str, means: Mapping[str, float]) -> dict[str, tuple[float, float, float]]:
        """Label -> (rank of the mean, lower and upper rank over resamples of the cases) of the rows in `means`."""
        if not means:
            return {}
        sign, names = 1.0 if lower_is_better(metric) else -1.0, list(means)
        ranks = (sign * pd.Series(means)).rank().to_numpy()
        lows = highs = np.full(len(names), math.nan)
        if len(self.cases) > 1:
            grid = self.over_runs(metric).set_index(["case", "row", "class"])["value"]
            columns = grid.unstack(["row", "class"]).reindex(
                index=sorted(self.cases), columns=pd.MultiIndex.from_product([names, self.classes])
            )  # the same cases in the same order for all rows, so that all are resampled together
            resampled = pd.DataFrame(self.bootstrap.means(columns.to_numpy(float)).T, columns.columns)
            ranked = (sign * resampled.groupby(level=0, sort=False).mean()).rank(na_option="bottom")
            lows, highs = np.percentile(ranked, INTERVAL, axis=1, method="nearest")
        return {name: (float(a), float(b), float(c)) for name, a, b, c in zip(names, ranks, lows, highs)}

    @cached_property
    def comparisons(self) -> dict[str, list[Comparison]]:
        """Of the other rows with the baseline."""
        return {metric: compare(self, metric, self.baseline, self.bootstrap) for metric in self.metrics}

    @cached_property
    def seeds(self) -> dict[str, dict[int | str, float]]:
        """Label -> seed -> mean, of the metric that decides."""
        return means_of(self, self.metric, "seed")

    @cached_property
    def suitability(self) -> Suitability | None:
        """Between trainers over within them, of the metric that decides; None below two of at least two runs each."""
        means: dict[str, list[float]] = {}
        for run in self.done:
            mean = mean_of_class_means(run.values(self.metric))
            if self.ranked(run.row.label) and not math.isnan(mean):
                means.setdefault(run.row.label, []).append(mean)
        several = [found for found in means.values() if len(found) > 1]
        if len(several) < 2:
            return None
        between = statistics.stdev(map(statistics.fmean, several))
        within = statistics.fmean(map(statistics.stdev, several))
        fewest = min(map(len, several))
        ratio = between / within if within else math.inf
        return Suitability(between, within, ratio, 1 / math.sqrt(fewest), len(several), fewest)

    @cached_property
    def costs(self) -> list[Record]:
        """What each trainer costs: medians over its runs; None where nothing is recorded."""
        return [_costs(row.label, self.runs_of(row.label)) for row in self.rows if not row.human]

    @property
    def memory_of(self) -> str:
        """Whose memory was measured, in brackets; "" where nothing is recorded."""
        what = _listed(cost["peak_memory_what"] for cost in self.costs if cost["peak_memory_what"])
        return f" ({what})" if what else ""


@dataclass(frozen=True)
class Analysis:
    """Everything.

    Attributes:
        benchmark: what was read.
        baseline, baseline_why: label of the row the others are compared with, and who chose it.
        results: one per arena.
        checklist: what there is to say about the comparison itself.
    """

    benchmark: Benchmark
    baseline: str
    baseline_why: str
    results: tuple[Result, ...]
    checklist: Sequence[fairness.Item]

    @property
    def mean_ranks(self) -> dict[str, float]:
        """Label -> mean rank over the arenas, best first, of rows ranked in all of them; {} for a single arena."""
        if len(self.results) < 2:
            return {}
        ranks = pd.DataFrame(
            {item.label: item.rank for item in result.summaries[result.metric]} for result in self.results
        )
        return ranks.mean(skipna=False).dropna().sort_values().to_dict()


def analyse(benchmark: Benchmark, options: ReportOptions) -> Analysis:
    """Compute everything.

    Args:
        benchmark: from `read_benchmark`.
        options: what to report.

    Raises:
        BenchmarkError: no run has scores, no such baseline or metric.
    """
    label, why = choose_baseline(benchmark, options.baseline)
    done = [run for run in benchmark.runs if run.done]
    if not done:
        first = benchmark.runs[0]
        raise BenchmarkError(
            f"{benchmark.folder} has no finished run yet, so there is nothing to report ({first.title}: "
            f"{first.problem}); look at it with   swin-umamba benchmark status {benchmark.folder}"
        )
    there = list(dict.fromkeys(name for run in done for name in run.scores["metric"].unique()))
    metrics = options.metrics or [name for name in METRICS if name in there] or there[:1]
    unknown = [name for name in metrics if name not in there]
    if unknown:
        raise BenchmarkError(f"no run has the metric {unknown[0]!r}; its metrics.csv files have {', '.join(there)}")
    arenas = make_arenas(benchmark, metrics)
    results = tuple(Result(**vars(arena), baseline=label, bootstrap=options.bootstrap) for arena in arenas)
    return Analysis(benchmark, label, why, results, fairness.checklist(benchmark, results))


def choose_baseline(benchmark: Benchmark, wanted: str) -> tuple[str, str]:
    """Label of the baseline, and who chose it.

    Raises:
        BenchmarkError: no row is called so.
    """
    labels = [row.label for row in benchmark.rows]
    names = {**{row.name: row.label for row in reversed(benchmark.rows)}, **dict(zip(labels, labels))}
    for name, why in (
        (wanted, "asked for"),
        (str(benchmark.content["config"].get("baseline") or ""), "as configured"),
    ):
        if name in names:
            return names[name], why
        if name:
            raise BenchmarkError(f"the baseline {name!r} is none of the rows; choose one of {', '.join(labels)}")
    known = fairness.identities(benchmark.rows)
    own = (label for label, row in known.items() if row.stock and not row.residual)
    if found := next(own, ""):
        return found, "nnU-Net itself, as none was named"
    return labels[0], "the first row, as none was named"


def _costs(label: str, runs: Sequence[Scored]) -> Record:
    counted = next((run.part("cost") for run in runs if run.part("cost")), {})
    training = [run.part("training") for run in runs if run.part("training").get("seconds_per_epoch")]

    def of(name: str, parts: Sequence[Record] = training) -> list[Any]:
        return [part[name] for part in parts if part.get(name)]

    return {
        "label": label,
        **{name: counted.get(name) for name in ("parameters", "flops", "scan_flops")},
        "uncounted": counted.get("uncounted") or [],
        "input_shape": counted.get("input_shape"),
        "seconds_per_epoch": _median(of("seconds_per_epoch")),
        "training_seconds": _median(of("seconds")),
        "peak_memory_bytes": max(of("peak_memory_bytes"), default=None),
        "peak_memory_what": _listed(of("peak_memory_what")),
        "seconds_per_case": _median(of("seconds_per_case", [run.part("prediction") for run in runs])),
        **{name: _only(of(name)) for name in ("epochs", "iterations_per_epoch", "batch_size")},
        "patch_size": _only(map(tuple, of("patch_size"))),
        "devices": _listed(item.get("device_name") or item.get("device") for item in training),
        "n_runs": len(training),
    }


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(sorted({str(value) for value in values}))


def _only(values: Iterable[Any]) -> Any:
    """The value all have, None where they differ or none has one."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(map(float, values)) if values else None
