"""What is compared with what: the scores of one dataset on one set of cases, and the averages everything is made of.

Three averages of the same values, each stated where it is shown:

- over runs: a case's and class's value, averaged over the trainings (seeds, and folds where the same cases are
  predicted by several) that scored it;
- mean of class means: each class's mean over cases, then the mean over classes; what `swin-umamba evaluate` prints;
- per case: the mean over the classes that are defined in this case; what cases are compared by.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from swin_umamba_nnunet.benchmark.config import Row
from swin_umamba_nnunet.benchmark.report.collect import SCORE_COLUMNS, Benchmark, Scored

LOWER_IS_BETTER = ("HD95", "ASSD", "HD95_medpy")


@dataclass(frozen=True)
class Arena:
    """A dataset, the cases that are scored in it, and all runs on them.

    Attributes:
        dataset: full name.
        scored_on: which cases.
        title: heading; the dataset, with `scored_on` where a dataset has several arenas.
        rows: all of the benchmark's.
        runs: of this arena, done or not.
        metrics: names of those reported, the first of which decides ranks and charts.
    """

    dataset: str
    scored_on: str
    title: str
    rows: tuple[Row, ...]
    runs: tuple[Scored, ...]
    metrics: tuple[str, ...]

    @property
    def metric(self) -> str:
        """The one that decides."""
        return self.metrics[0]

    @cached_property
    def scores(self) -> pd.DataFrame:
        """All values, a line per row, fold, seed, case, class and metric."""
        frames = [run.scores for run in self.done]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=SCORE_COLUMNS)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """In the order of the evaluation."""
        return tuple(self.scores["class"].unique())

    @property
    def done(self) -> tuple[Scored, ...]:
        return tuple(run for run in self.runs if run.done)

    def runs_of(self, label: str) -> tuple[Scored, ...]:
        """Those of one row."""
        return tuple(run for run in self.runs if run.row.label == label)

    def values(self, metric: str, label: str = "") -> pd.DataFrame:
        """The lines of `scores` with this metric, of one row or of all."""
        found = self._by_metric.get(metric, self.scores[:0])
        return found[found["row"] == label] if label else found

    @cached_property
    def _by_metric(self) -> dict[str, pd.DataFrame]:
        return {str(name): frame for name, frame in self.scores.groupby("metric", sort=False)}

    def unit(self, metric: str) -> str:
        """Unit of a metric, "1" for ratios."""
        found = self.values(metric)["unit"]
        return str(found.iloc[0]) if len(found) else "1"

    def details(self, metric: str) -> str:
        """What else the values depend on, such as the tolerance of the NSD."""
        return ", ".join(sorted({str(detail) for detail in self.values(metric)["detail"] if detail}))

    def over_runs(self, metric: str) -> pd.DataFrame:
        """Averages over runs of the finite values, NaN where there is none; a line per row, case and class."""
        frame = self.values(metric).copy()
        frame["value"] = frame["value"].astype(float).replace([np.inf, -np.inf], np.nan)
        return frame.groupby(["row", "case", "class"], sort=False)["value"].mean().reset_index()

    def per_case(self, metric: str) -> pd.DataFrame:
        """Values per case (lines) and row (columns, by label); NaN where nothing is defined.

        Undefined values are left out.  An infinite distance stays infinite: a structure that was missed in one of the
        runs is worse than any distance, and dropping it would flatter whoever missed it.
        """
        frame = self.values(metric).astype({"value": float})
        per_class = frame.groupby(["row", "case", "class"], sort=False)["value"].mean()
        per_case = per_class.groupby(level=["row", "case"], sort=False).mean().unstack("row")
        return per_case.reindex(columns=[row.label for row in self.rows]).sort_index()

    def cases_of(self, label: str) -> frozenset[str]:
        """Cases that a row was scored on."""
        return frozenset(self.scores.loc[self.scores["row"] == label, "case"])

    @cached_property
    def cases(self) -> frozenset[str]:
        """Cases that any row was scored on."""
        return frozenset(self.scores["case"])

    def comparable(self, label: str) -> bool:
        """Whether a row was scored on all cases, so that its mean may be ranked."""
        return bool(self.cases) and self.cases_of(label) == self.cases


def mean_of_class_means(frame: pd.DataFrame) -> float:
    """Of lines with "case", "class" and "value": over runs, then cases, then classes; finite values only."""
    finite = frame[np.isfinite(frame["value"].astype(float))]
    if not len(finite):
        return float("nan")
    per_case = finite.groupby(["class", "case"])["value"].mean()
    return float(per_case.groupby(level="class").mean().mean())


def make_arenas(benchmark: Benchmark, metrics: Sequence[str]) -> list[Arena]:
    """One arena per dataset, or several where folds of it are scored on different sets of cases."""
    scored: dict[str, dict[str, list[Scored]]] = {}
    for run in benchmark.runs:
        scored.setdefault(run.dataset, {}).setdefault(run.scored_on, []).append(run)
    arenas = []
    for dataset, several in scored.items():
        for scored_on, runs in several.items():
            title = f"{dataset} ({scored_on})" if len(several) > 1 else dataset
            there = {str(name) for run in runs for name in run.scores["metric"].unique()}
            names = tuple(name for name in metrics if name in there) or tuple(metrics)
            arenas.append(Arena(dataset, scored_on, title, benchmark.rows, tuple(runs), names))
    return arenas


def lower_is_better(metric: str) -> bool:
    """Whether a metric is a distance rather than a score."""
    return metric in LOWER_IS_BETTER
