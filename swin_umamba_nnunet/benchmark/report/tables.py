"""The report's numbers as CSV files: a line per value, with unit and nothing rounded."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

import pandas as pd

from swin_umamba_nnunet._text import csv_cell
from swin_umamba_nnunet.benchmark.files import Record
from swin_umamba_nnunet.benchmark.report.analysis import Analysis, Result
from swin_umamba_nnunet.benchmark.report.collect import mean_of_class_means


def files(analysis: Analysis) -> dict[str, str]:
    """File name -> content."""
    tables = {
        "results.csv": _lines(analysis, lambda result, metric: map(asdict, result.summaries[metric])),
        "classes.csv": _lines(analysis, _classes),
        "comparisons.csv": _lines(
            analysis, lambda result, metric: ({"label": c.row, **asdict(c)} for c in result.comparisons[metric])
        ),
        "costs.csv": _lines(analysis, lambda result, metric: result.costs if metric == result.metric else ()),
        "cases.csv": _lines(analysis, _cases),
        "runs.csv": runs(analysis),
    }
    return {name: _csv(lines) for name, lines in tables.items()}


def _csv(lines: Iterable[Record]) -> str:
    cells = [
        {name: csv_cell(value) if isinstance(value, str) else value for name, value in line.items()} for line in lines
    ]
    return pd.DataFrame(cells).to_csv(index=False, na_rep="", lineterminator="\n")


def _lines(analysis: Analysis, of: Callable[[Result, str], Iterable[Record]]) -> Iterator[Record]:
    """What `of` gives for each arena and metric, each with a "label", behind the names of the arena and row."""
    rows = {row.label: row for row in analysis.benchmark.rows}
    for result in analysis.results:
        for metric in result.metrics:
            for item in of(result, metric):
                row = rows[item["label"]]
                yield {
                    "dataset": result.dataset,
                    "scored_on": result.scored_on,
                    "label": row.label,
                    "trainer": row.name,
                    "plans": row.plans,
                    "configuration": row.configuration,
                    "metric": metric,
                    "unit": result.unit(metric),
                    **item,
                }


def _classes(result: Result, metric: str) -> Iterator[Record]:
    for label, table in result.class_tables[metric].items():
        for name, item in table.items():
            yield {
                "label": label,
                "class": name,
                "mean": item.mean,
                "sd_cases": item.std,
                "low": item.low,
                "high": item.high,
                "n_cases": item.n_cases,
                "n_without_finite_value": item.n_undefined + item.n_infinite,
            }


def _cases(result: Result, metric: str) -> Iterator[Record]:
    """Per case, the mean over its defined classes, averaged over runs."""
    for label, values in result.per_case(metric).items():
        for case, value in values.items():
            yield {"label": label, "case": case, "value": value}


# What a run's record says, by its part, that is in the table of runs.
_OF_RUNS = {
    "training": "epochs seconds_per_epoch peak_memory_bytes peak_memory_what",
    "prediction": "seconds_per_case",
    "inputs": "plans_sha256 splits_sha256 weights_sha256",
}


def runs(analysis: Analysis) -> Iterator[Record]:
    """All runs, with the mean of the metric that decides."""
    metric = analysis.results[0].metric
    for run in analysis.benchmark.runs:
        training = run.part("training")
        yield {
            "dataset": run.dataset,
            "label": run.row.label,
            "trainer": run.row.name,
            "fold": run.fold,
            "seed": run.shown_seed,
            "state": run.record["state"],
            "problem": run.problem,
            f"mean {metric}": mean_of_class_means(run.values(metric)),
            "device": training.get("device_name") or run.part("inputs").get("device"),
            "training_seconds": training.get("seconds"),
            **{name: run.part(part).get(name) for part, names in _OF_RUNS.items() for name in names.split()},
            **{name: run.record.get(name) for name in ("attempts", "host", "started", "finished")},
        }
