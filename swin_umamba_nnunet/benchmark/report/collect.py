"""What a benchmark's folder holds, read without running or importing anything of it; and what is compared with what:
the scores of one dataset on one set of cases, and the averages everything is made of.

Three averages of the same values, each stated where it is shown:

- over runs: a case's and class's value, averaged over the trainings (seeds, and folds where the same cases are
  predicted by several) that scored it;
- mean of class means: each class's mean over cases, then the mean over classes; what `swin-umamba evaluate` prints;
- per case: the mean over the classes that are defined in this case; what cases are compared by.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from swin_umamba_nnunet._text import from_csv_cell
from swin_umamba_nnunet.benchmark import runs as layout
from swin_umamba_nnunet.benchmark.config import Row
from swin_umamba_nnunet.benchmark.files import BenchmarkError, Record
from swin_umamba_nnunet.evaluation.output import COLUMNS as CSV_COLUMNS
from swin_umamba_nnunet.evaluation.output import METRICS_FILE
from swin_umamba_nnunet.evaluation.protocols.plain import COUNTS
from swin_umamba_nnunet.evaluation.records import PLAIN, WHOLE_IMAGE

LOWER_IS_BETTER = ("HD95", "ASSD", "HD95_medpy")
SCORE_COLUMNS = ("row", "fold", "seed", "case", "class", "metric", "value", "unit", "detail")


@dataclass(frozen=True)
class Scored(layout.Run):
    """A run with what is there of it.

    Attributes:
        record: cell.json.
        scores: a line per case, class and metric (`SCORE_COLUMNS`); empty unless the run is done.
        problem: why it has no scores, "" if it has.
        scored_on: which cases were predicted.
    """

    record: Record
    scores: pd.DataFrame
    problem: str
    scored_on: str

    @property
    def title(self) -> str:
        """What people call it."""
        seed = f", seed {self.seed}" if self.shown_seed else ""
        return f"{self.dataset}, {self.row.label}, fold {self.fold}{seed}"

    @property
    def done(self) -> bool:
        """Whether it has scores."""
        return not self.problem

    def part(self, name: str) -> Record:
        """A section of cell.json, {} where it is missing or null."""
        return self.record.get(name) or {}

    def values(self, metric: str) -> pd.DataFrame:
        """The lines of `scores` with this metric."""
        return self.scores[self.scores["metric"] == metric]


@dataclass(frozen=True)
class Benchmark(layout.Benchmark):
    """Everything the report is made of: a benchmark with the scores of its runs."""

    runs: tuple[Scored, ...]

    @property
    def missing(self) -> tuple[Scored, ...]:
        """Runs without scores."""
        return tuple(run for run in self.runs if not run.done)


def read_benchmark(folder: Path) -> Benchmark:
    """Read a benchmark's folder.

    Raises:
        BenchmarkError: there is no benchmark, or its files are damaged.
    """
    planned = layout.read_benchmark(folder)
    held_out = bool(planned.content["config"].get("test"))
    return Benchmark(folder, planned.content, tuple(_scored(run, held_out) for run in planned.runs))


def _scored(run: layout.Run, held_out: bool) -> Scored:
    """A run with its record and scores; `held_out` is whether the benchmark scores on the test set."""
    record, scores = run.read(), pd.DataFrame(columns=SCORE_COLUMNS)
    problem = _problem(record)
    if not problem:
        try:
            scores = read_scores(run)
            problem = "" if len(scores) else f"its {METRICS_FILE} is empty"
        except FileNotFoundError as error:
            problem = f"its scores are missing ({error.filename})"
    usual = "test set" if held_out or run.fold == "all" else "validation cases of the fold"
    scored_on = (record.get("inputs") or {}).get("scored_on", usual)
    return Scored(**vars(run), record=record, scores=scores, problem=problem, scored_on=scored_on)


def _problem(record: Record) -> str:
    """Why a run with this record has no scores."""
    state = record["state"]
    if state == "done":
        return ""
    if state == "failed":
        error = record.get("error") or {}
        reason = error.get("reason") or f"{error.get('step', 'a step')} failed with exit code {error.get('exit_code')}"
        return f"failed: {reason}"
    if state == "running":
        return f"not finished: it was at the step {record.get('step', 'train')!r} when this report was made"
    return "interrupted: it goes on with the next run" if record.get("attempts") else "never started"


def read_scores(run: layout.Run) -> pd.DataFrame:
    """The plain scores of a run's metrics.csv, with its names in front.

    Raises:
        FileNotFoundError: it is not there.
        BenchmarkError: it is not a metrics.csv.
    """
    path, lines = run.evaluation / METRICS_FILE, []
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not {*CSV_COLUMNS} <= {*(reader.fieldnames or ())}:
            raise BenchmarkError(f"{path} has the columns {reader.fieldnames}; expected {', '.join(CSV_COLUMNS)}")
        for number, line in enumerate(reader, 2):
            convention, _, detail = line["convention"].partition(": ")
            # what was counted is no score: scores come from it
            if convention != PLAIN or line["class"] == WHOLE_IMAGE or line["metric"].split("@")[0] in COUNTS:
                continue
            try:
                value = float(line["value"]) if line["value"] else math.nan
            except ValueError:
                raise BenchmarkError(f"{path}, line {number}: {line['value']!r} is no number; evaluate again") from None
            names = (run.row.label, run.fold, run.seed, from_csv_cell(line["case"]), from_csv_cell(line["class"]))
            lines.append((*names, line["metric"], value, line["unit"], detail))
    return pd.DataFrame(lines, columns=SCORE_COLUMNS)


@dataclass(frozen=True)
class Arena:
    """A dataset, the cases that are scored in it, and all runs on them.

    Attributes:
        dataset: full name.
        scored_on: which cases.
        title: heading; the dataset, with `scored_on` where a dataset has several arenas.
        rows: all of the benchmark's, less observers who have not segmented it.
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

    def is_human(self, label: str) -> bool:
        """Whether a row is an observer."""
        return any(row.human for row in self.rows if row.label == label)

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

    def over_runs(self, metric: str, label: str = "") -> pd.DataFrame:
        """Averages over runs of the finite values, NaN where there is none; a line per row, case and class."""
        frame = (
            self.values(metric, label).astype({"value": float}).replace({"value": {np.inf: np.nan, -np.inf: np.nan}})
        )
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
        """Whether a row was scored on all cases, so that its mean compares."""
        return bool(self.cases) and self.cases_of(label) == self.cases

    def ranked(self, label: str) -> bool:
        """Whether it is a trainer of which that holds."""
        return self.comparable(label) and not self.is_human(label)


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
            rows = tuple(row for row in benchmark.rows if not row.human or row in {run.row for run in runs})
            arenas.append(Arena(dataset, scored_on, title, rows, tuple(runs), names))
    return arenas


def lower_is_better(metric: str) -> bool:
    """Whether a metric is a distance rather than a score."""
    return metric in LOWER_IS_BETTER
