"""The report's numbers as CSV: a line per value, with unit, nothing rounded."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd

from swin_umamba_nnunet._text import csv_cell
from swin_umamba_nnunet.benchmark.report.analysis import Analysis, ArenaResult
from swin_umamba_nnunet.benchmark.report.collect import Row


def csv_files(analysis: Analysis) -> dict[str, str]:
    """File name -> content."""
    return {
        "results.csv": _text(_results(analysis)),
        "classes.csv": _text(_classes(analysis)),
        "comparisons.csv": _text(_comparisons(analysis)),
        "costs.csv": _text(_costs(analysis)),
        "cases.csv": _text(_cases(analysis)),
        "cells.csv": _text(_cells(analysis)),
    }


def _text(lines: Iterator[dict[str, Any]]) -> str:
    def cell(value: Any) -> Any:
        return csv_cell(value) if isinstance(value, str) else value

    cells = [{name: cell(value) for name, value in line.items()} for line in lines]
    return pd.DataFrame(cells).to_csv(index=False, na_rep="", lineterminator="\n")


def _head(result: ArenaResult, row: Row) -> dict[str, Any]:
    return {
        "dataset": result.arena.dataset, "scored_on": result.arena.scored_on, "label": row.label,
        "trainer": row.trainer, "plans": row.plans, "configuration": row.configuration,
    }  # fmt: skip


def _results(analysis: Analysis) -> Iterator[dict[str, Any]]:
    for result in analysis.results:
        rows = {row.label: row for row in result.arena.rows}
        for metric, found in result.summaries.items():
            for item in found:
                yield {**_head(result, rows[item.label]), "unit": result.arena.unit(metric), **asdict(item)}


def _classes(analysis: Analysis) -> Iterator[dict[str, Any]]:
    for result in analysis.results:
        for metric, table in result.classes.items():
            for row in result.arena.rows:
                for name, item in table[row.label].items():
                    yield {
                        **_head(result, row), "metric": metric, "unit": item.unit, "class": name, "mean": item.mean,
                        "sd_cases": item.std, "low": item.low, "high": item.high, "n_cases": item.n_cases,
                        "n_without_finite_value": item.n_undefined + item.n_infinite,
                    }  # fmt: skip


def _comparisons(analysis: Analysis) -> Iterator[dict[str, Any]]:
    for result in analysis.results:
        rows = {row.label: row for row in result.arena.rows}
        for metric, found in result.comparisons.items():
            for item in found:
                yield {**_head(result, rows[item.row]), "unit": result.arena.unit(metric), **asdict(item)}


def _costs(analysis: Analysis) -> Iterator[dict[str, Any]]:
    for result in analysis.results:
        for row, cost in zip(result.arena.rows, result.costs):
            yield {**_head(result, row), **cost}


def _cases(analysis: Analysis) -> Iterator[dict[str, Any]]:
    """Per case, the mean over its defined classes, averaged over runs."""
    for result in analysis.results:
        for metric in result.arena.metrics:
            values = result.arena.per_case(metric)
            for row in result.arena.rows:
                for case, value in values[row.label].items():
                    yield {**_head(result, row), "metric": metric, "unit": result.arena.unit(metric), "case": case,
                           "value": value}  # fmt: skip


def _cells(analysis: Analysis) -> Iterator[dict[str, Any]]:
    for cell in analysis.benchmark.cells:
        training, prediction, inputs = cell.part("training"), cell.part("prediction"), cell.part("inputs")
        yield {
            "dataset": cell.dataset, "label": cell.row.label, "trainer": cell.row.trainer, "fold": cell.fold,
            "seed": cell.seed, "state": cell.record.get("state", "waiting"), "problem": cell.problem,
            "attempts": cell.record.get("attempts"), "host": cell.record.get("host"),
            "device": training.get("device_name") or inputs.get("device"), "epochs": training.get("epochs"),
            "training_seconds": training.get("seconds"), "seconds_per_epoch": training.get("seconds_per_epoch"),
            "peak_memory_bytes": training.get("peak_memory_bytes"),
            "peak_memory_what": training.get("peak_memory_what"),
            "seconds_per_case": prediction.get("seconds_per_case"), "started": cell.record.get("started"),
            "finished": cell.record.get("finished"), "plans_sha256": inputs.get("plans_sha256"),
            "splits_sha256": inputs.get("splits_sha256"), "weights_sha256": inputs.get("weights_sha256"),
        }  # fmt: skip
