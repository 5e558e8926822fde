"""The report's numbers as files: CSV, a line per value with unit and nothing rounded; LaTeX, rounded as on the page."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from swin_umamba_nnunet._text import byte_size, csv_cell, printable
from swin_umamba_nnunet.benchmark.report import words
from swin_umamba_nnunet.benchmark.report.analysis import Analysis, Result
from swin_umamba_nnunet.benchmark.report.collect import mean_of_class_means

LATEX = "tables.tex"
_HEAD = (
    "% Made by swin-umamba benchmark report. Needs \\usepackage{booktabs}; read with \\input{tables.tex}.\n"
    "% Means leave out undefined and infinite values, which the HTML report counts.\n"
)
_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "{}$&#%_"},
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': "''",
        words.MINUS: "$-$",
        words.DASH: "--",
        "\u221e": r"$\infty$",
        "\u2026": r"\ldots{}",
        "\u00b1": r"$\pm$",
        "\n": " ",
    }
)


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
    return {LATEX: latex(analysis), **{name: _csv(lines) for name, lines in tables.items()}}


def _csv(lines: Iterable[Mapping[str, Any]]) -> str:
    cells = [
        {name: csv_cell(value) if isinstance(value, str) else value for name, value in line.items()} for line in lines
    ]
    return pd.DataFrame(cells).to_csv(index=False, na_rep="", lineterminator="\n")


def _lines(analysis: Analysis, of: Callable[[Result, str], Iterable[Mapping[str, Any]]]) -> Iterator[dict[str, Any]]:
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


def _classes(result: Result, metric: str) -> Iterator[dict[str, Any]]:
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


def _cases(result: Result, metric: str) -> Iterator[dict[str, Any]]:
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


def runs(analysis: Analysis) -> Iterator[dict[str, Any]]:
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


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return printable(text, lines=True).translate(_ESCAPES)


def latex(analysis: Analysis) -> str:
    """Means and comparisons of every arena and metric, and costs of every arena, as tables."""
    parts = [_HEAD]
    for result in analysis.results:
        title = result.title
        for metric in result.metrics:
            unit = result.unit(metric)
            lines = [
                {
                    "Trainer": s.label,
                    "Runs": f"{s.done}/{s.planned}",
                    words.in_unit(metric, unit): words.number(s.mean, unit)
                    + ("" if math.isnan(s.sd_seeds) else f" \u00b1 {words.number(s.sd_seeds, unit)}"),
                    "95 % interval": words.interval(s.low, s.high, unit),
                    "Rank": words.rank(s.rank),
                }
                for s in result.summaries[metric]
            ]
            caption = (
                f"{title}, {metric}: mean of class means over cases, runs averaged per case, \u00b1 sample standard "
                "deviation over seeds where there are several; 95 % percentile-bootstrap interval over cases; rank of "
                "the mean."
            )
            parts.append(_latex_table(lines, caption, f"{title}-{metric}-means"))
            if found := result.comparisons[metric]:
                lines = [
                    {
                        "Trainer": c.row,
                        "Better/worse": f"{c.n_better}/{c.n_worse} of {c.n_pairs}",
                        "Difference": words.difference(c, unit),
                        "95 % interval": words.interval(c.low, c.high, unit, True),
                        "r": words.coefficient(c.effect),
                        "p (Holm)": words.p_value(c.p_holm),
                    }
                    for c in found
                ]
                caption = (
                    f"{title}: {metric} minus that of {analysis.baseline}, case by case: in how many cases the trainer "
                    "is better and worse, median difference with its 95 % percentile-bootstrap interval over cases, "
                    "matched-pairs rank-biserial correlation r (positive where the trainer is better), p of Wilcoxon's "
                    "signed-rank test, Holm-corrected over the planned trainers (over observers apart)."
                )
                parts.append(_latex_table(lines, caption, f"{title}-{metric}-paired"))
        lines = [
            {
                "Trainer": cost["label"],
                "Parameters": words.count(cost["parameters"]),
                "Multiply-adds": words.flops(cost),
                "Epoch": words.seconds(cost["seconds_per_epoch"]),
                "Memory": words.given(cost["peak_memory_bytes"], byte_size),
                "Case": words.seconds(cost["seconds_per_case"]),
            }
            for cost in result.costs
        ]
        caption = (
            f"{title}: cost. Multiply-adds of one forward pass at batch 1, scans counted; medians over runs; peak "
            f"memory in training{result.memory_of}; prediction with everything nnUNetv2_predict does."
        )
        parts.append(_latex_table(lines, caption, f"{title}-cost"))
    return "\n".join(parts)


def _latex_table(lines: Sequence[Mapping[str, str]], caption: str, label: str) -> str:
    """A table; every cell is escaped here.  The first column is set left, the others right."""
    frame = pd.DataFrame([{escape(name): escape(text) for name, text in line.items()} for line in lines])
    name = "".join(character if character.isalnum() and character.isascii() else "-" for character in label).lower()
    text = frame.style.hide(axis="index").to_latex(
        column_format="l" + "r" * (frame.shape[1] - 1),
        hrules=True,
        position_float="centering",
        caption=escape(caption),
        label=f"tab:{name}",
    )
    return text.replace(r"\centering", r"\centering\footnotesize\setlength{\tabcolsep}{3.5pt}", 1)
