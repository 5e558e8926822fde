"""What a benchmark's folder holds, read without running or importing anything of it."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from swin_umamba_nnunet._text import from_csv_cell, printable
from swin_umamba_nnunet.benchmark import config as settings
from swin_umamba_nnunet.benchmark import runs as layout
from swin_umamba_nnunet.benchmark.fairness import Identity, identify
from swin_umamba_nnunet.benchmark.files import MatrixError, read_json
from swin_umamba_nnunet.evaluation.output import COLUMNS as CSV_COLUMNS
from swin_umamba_nnunet.evaluation.output import METRICS_FILE
from swin_umamba_nnunet.evaluation.records import WHOLE_IMAGE

CONVENTION = "plain"  # whose values are reported
# Elements and objects that were counted: the scores come from them, they are none.
COUNTS = ("TP", "FP", "FN", "TN")
SCORE_COLUMNS = ("row", "fold", "seed", "case", "class", "metric", "value", "unit", "detail")


@dataclass(frozen=True)
class Row:
    """One row of the tables: a trainer with its plans and configuration.

    Attributes:
        key: "TRAINER__PLANS__CONFIGURATION", the name of nnU-Net's folder.
        label: what it is called in the report.
        trainer, plans, configuration: as nnU-Net's commands take them.
        weights: name of the ImageNet weights it starts from, "" for random ones.
        weights_sha256: of that file, "" where unknown.
        identity: what it is, whatever it is called; None of a benchmark that did not record it.
    """

    key: str
    label: str
    trainer: str
    plans: str
    configuration: str
    weights: str = ""
    weights_sha256: str = ""
    identity: Identity | None = None


@dataclass(frozen=True)
class Cell:
    """One training with its prediction and scores, or what is there of it.

    Attributes:
        folder: of the cell.
        dataset: full name.
        row: whose it is.
        fold, seed: as in the configuration.
        record: cell.json; {} if the cell never began.
        scores: a line per case, class and metric (`SCORE_COLUMNS`); empty unless the cell is done.
        problem: why it has no scores, "" if it has.
        held_out: whether the benchmark scores on the test set, which a cell that never began does not know.
    """

    folder: Path
    dataset: str
    row: Row
    fold: str
    seed: int
    record: Mapping[str, Any]
    scores: pd.DataFrame
    problem: str
    held_out: bool = False

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.dataset}, {self.row.label}, fold {self.fold}, seed {self.seed}"

    @property
    def done(self) -> bool:
        """Whether it has scores."""
        return not self.problem

    @property
    def scored_on(self) -> str:
        """Which cases were predicted."""
        default = "test set" if self.held_out or self.fold == "all" else "validation cases of the fold"
        return (self.record.get("inputs") or {}).get("scored_on", default)

    def part(self, name: str) -> Mapping[str, Any]:
        """A section of cell.json, {} where it is missing or null."""
        return self.record.get(name) or {}


@dataclass(frozen=True)
class Benchmark:
    """Everything the report is made of.

    Attributes:
        folder: of the benchmark.
        content: benchmark.json.
        rows: in the order of the configuration.
        cells: those that the configuration names.
        strays: names of cells that the folder holds besides, of an earlier configuration.
    """

    folder: Path
    content: Mapping[str, Any]
    rows: tuple[Row, ...]
    cells: tuple[Cell, ...]
    strays: tuple[str, ...] = ()

    @property
    def config(self) -> Mapping[str, Any]:
        return self.content.get("config") or {}

    @property
    def findings(self) -> list[Mapping[str, Any]]:
        """What the runner found about the fairness of the comparison."""
        return list(self.content.get("findings") or [])


def read_benchmark(folder: Path) -> Benchmark:
    """Read a benchmark's folder.

    Raises:
        MatrixError: there is no benchmark, or its files are damaged.
    """
    planned = layout.read_benchmark(folder)
    rows = {row.key: _row(row) for row in planned.rows}
    held_out = bool(planned.content["config"].get("test"))
    found = tuple(replace(_cell(run, rows[run.row.key]), held_out=held_out) for run in planned.runs)
    return Benchmark(folder, planned.content, tuple(rows.values()), found, tuple(planned.strays))


def _row(row: settings.Row) -> Row:
    """A row of the configuration with what the runner has recorded about it."""
    recorded = row.recorded
    weights = recorded.get("weights") or {}
    return Row(
        row.key, printable(row.label), row.name, row.plans, row.configuration, weights.get("name") or "",
        weights.get("sha256") or "", identify(recorded) if recorded.get("ancestors") else None,
    )  # fmt: skip


def _cell(planned: layout.Run, row: Row) -> Cell:
    here, dataset, fold, seed = planned.folder, planned.dataset, str(planned.fold), planned.seed
    empty = pd.DataFrame(columns=SCORE_COLUMNS)
    record = read_json(here / "cell.json") or {}
    problem = _problem(record)
    if problem:
        return Cell(here, dataset, row, fold, seed, record, empty, problem)
    file = here / "evaluation" / METRICS_FILE
    try:
        scores = read_scores(file, row.label, fold, seed)
    except FileNotFoundError:
        return Cell(here, dataset, row, fold, seed, record, empty, f"its scores are missing ({file})")
    return Cell(here, dataset, row, fold, seed, record, scores, "" if len(scores) else "its metrics.csv is empty")


def _problem(record: Mapping[str, Any]) -> str:
    """Why a cell with this record has no scores."""
    state = record.get("state")
    if state == "done":
        return ""
    if state == "failed":
        error = record.get("error") or {}
        reason = error.get("reason") or f"{error.get('step', 'a step')} failed with exit code {error.get('exit_code')}"
        return f"failed: {reason}"
    if state == "running":
        return f"not finished: it was at the step {record.get('step', 'train')!r} when this report was made"
    return "interrupted: it goes on with the next run" if record.get("attempts") else "never started"


def read_scores(path: Path, row: str, fold: str, seed: int) -> pd.DataFrame:
    """The plain scores of a metrics.csv, with the cell's names in front.

    Raises:
        FileNotFoundError: it is not there.
        MatrixError: it is not a metrics.csv.
    """
    lines = []
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not {*CSV_COLUMNS} <= {*(reader.fieldnames or ())}:
            raise MatrixError(f"{path} has the columns {reader.fieldnames}; expected {', '.join(CSV_COLUMNS)}")
        for number, line in enumerate(reader, 2):
            convention, _, detail = line["convention"].partition(": ")
            if convention != CONVENTION or line["class"] == WHOLE_IMAGE or line["metric"].split("@")[0] in COUNTS:
                continue
            try:
                value = float(line["value"]) if line["value"] else math.nan
            except ValueError:
                raise MatrixError(f"{path}, line {number}: {line['value']!r} is no number; evaluate again") from None
            names = (row, fold, seed, from_csv_cell(line["case"]), from_csv_cell(line["class"]), line["metric"])
            lines.append((*names, value, line["unit"], detail))
    return pd.DataFrame(lines, columns=SCORE_COLUMNS)
