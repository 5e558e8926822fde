"""What a benchmark's folder holds, read without running or importing anything of it."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from swin_umamba_nnunet._text import from_csv_cell
from swin_umamba_nnunet.benchmark import runs as layout
from swin_umamba_nnunet.benchmark.files import BenchmarkError
from swin_umamba_nnunet.evaluation.output import COLUMNS as CSV_COLUMNS
from swin_umamba_nnunet.evaluation.output import METRICS_FILE
from swin_umamba_nnunet.evaluation.records import WHOLE_IMAGE

CONVENTION = "plain"  # whose values are reported
# Elements and objects that were counted: the scores come from them, they are none.
COUNTS = ("TP", "FP", "FN", "TN")
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

    record: Mapping[str, Any]
    scores: pd.DataFrame
    problem: str
    scored_on: str

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.dataset}, {self.row.label}, fold {self.fold}, seed {self.seed}"

    @property
    def done(self) -> bool:
        """Whether it has scores."""
        return not self.problem

    def part(self, name: str) -> Mapping[str, Any]:
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
    return Scored(run.output, run.dataset, run.row, run.fold, run.seed, record, scores, problem, scored_on)


def _problem(record: Mapping[str, Any]) -> str:
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
            if convention != CONVENTION or line["class"] == WHOLE_IMAGE or line["metric"].split("@")[0] in COUNTS:
                continue
            try:
                value = float(line["value"]) if line["value"] else math.nan
            except ValueError:
                raise BenchmarkError(f"{path}, line {number}: {line['value']!r} is no number; evaluate again") from None
            names = (run.row.label, run.fold, run.seed, from_csv_cell(line["case"]), from_csv_cell(line["class"]))
            lines.append((*names, line["metric"], value, line["unit"], detail))
    return pd.DataFrame(lines, columns=SCORE_COLUMNS)
