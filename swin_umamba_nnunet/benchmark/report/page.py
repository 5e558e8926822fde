"""The HTML page: what the template is given.  The template escapes everything but the charts."""

from collections.abc import Iterator
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from swin_umamba_nnunet import __version__
from swin_umamba_nnunet._text import printable
from swin_umamba_nnunet.benchmark.files import now
from swin_umamba_nnunet.benchmark.report import pitfalls, provenance, section, words
from swin_umamba_nnunet.benchmark.report.analysis import Analysis
from swin_umamba_nnunet.benchmark.report.arenas import mean_of_class_means
from swin_umamba_nnunet.benchmark.report.collect import Cell
from swin_umamba_nnunet.benchmark.report.published import OTHER_PROTOCOL, PUBLISHED, published_for

_SEVERITIES = {
    "flag": "Affects the comparison",
    "note": "Good to know",
    "suggestion": "Rows that a reader will ask for",
}
_MARKS = {pitfalls.OK: "\u25cb", pitfalls.CAUTION: "\u25d0", pitfalls.PROBLEM: "\u25cf", pitfalls.UNKNOWN: "?"}


def render(analysis: Analysis, n_pictures: int, published: bool) -> str:
    """The page, complete in itself.

    Args:
        analysis: the numbers.
        n_pictures: cases per dataset.
        published: whether to show the papers' tables.
    """
    here = resources.files(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    template = environment.from_string(here.joinpath("page.html.j2").read_text(encoding="utf-8"))
    css = here.joinpath("page.css").read_text(encoding="utf-8")
    # all of it, charts included: logs and names come from anywhere
    return printable(template.render(css=Markup(css), **_context(analysis, n_pictures, published)), lines=True)


def _context(analysis: Analysis, n_pictures: int, published: bool) -> dict[str, Any]:
    benchmark, results = analysis.benchmark, analysis.results
    metric = results[0].metric
    matched = [table for result in results for table in published_for(result.arena.dataset)]
    return {
        "title": f"Benchmark: {', '.join(dict.fromkeys(result.arena.dataset for result in results))}",
        "lead": (
            f"{words.plural(len(benchmark.rows), 'trainer')}, trained and predicted by nnU-Net's own commands and "
            "scored alike. In what they differ beyond what is compared stands under Fairness of the comparison."
        ),
        "facts": _facts(analysis),
        "baseline": analysis.baseline,
        "metric": metric,
        "rows": benchmark.rows,
        "results": [
            section.section(result, analysis, number, n_pictures, published)
            for number, result in enumerate(results, 1)
        ],
        "missing": analysis.missing,
        "n_cells": len(benchmark.cells),
        "mean_ranks": [
            (next(row for row in benchmark.rows if row.label == label), f"{rank:.2f}")
            for label, rank in sorted(analysis.mean_ranks.items(), key=lambda item: item[1])
        ],
        "findings": list(_findings(analysis)),
        "published": [table for table in PUBLISHED if table not in matched] if published else [],
        "other_protocol": OTHER_PROTOCOL,
        "checklist": analysis.checklist,
        "marks": _MARKS,
        "strays": benchmark.strays,
        "failed": [
            {"name": cell.name, "problem": cell.problem, "log": cell.part("error").get("log_tail", "")}
            for cell in analysis.missing if cell.record.get("state") == "failed"
        ],
        "cells": [_cell(cell, metric) for cell in benchmark.cells],
        "provenance": provenance.tables(benchmark),
        "commands": provenance.commands(benchmark),
        "config": provenance.configuration(benchmark),
        "definitions": list(_definitions(analysis)),
        "made": f"Made on {now()} by swin_umamba_nnunet {__version__} (swin-umamba benchmark report).",
        "beside": "results.csv, classes.csv, comparisons.csv, costs.csv, cases.csv, cells.csv and tables.tex",
    }  # fmt: skip


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    benchmark = analysis.benchmark
    done = len(benchmark.cells) - len(analysis.missing)
    devices = {
        cell.part("training").get("device_name") or cell.part("inputs").get("device") for cell in benchmark.cells
    }
    facts = {
        "cells with scores": f"{done} of {len(benchmark.cells)}",
        "datasets": len({cell.dataset for cell in benchmark.cells}),
        "trainers": len(benchmark.rows),
        "fold numbers": ", ".join(dict.fromkeys(cell.fold for cell in benchmark.cells)),
        "seed numbers": ", ".join(dict.fromkeys(str(cell.seed) for cell in benchmark.cells)),
        "baseline": f"{analysis.baseline} ({analysis.baseline_why})",
        "ran on": ", ".join(sorted(str(device) for device in devices if device)) or words.DASH,
    }
    return [(head, str(text)) for head, text in facts.items()]


def _findings(analysis: Analysis) -> Iterator[tuple[str, list[str]]]:
    found = analysis.benchmark.findings
    for severity, heading in _SEVERITIES.items():
        texts = []
        for item in found:
            if item.get("severity") == severity:
                where = f" ({', '.join(item['datasets'])})" if item.get("datasets") else ""
                texts.append(f"{item['text']}{where}")
        if texts:
            yield heading, texts


def _cell(cell: Cell, metric: str) -> dict[str, Any]:
    training = cell.part("training")
    mean = words.DASH
    if cell.done:
        mean = words.number(mean_of_class_means(cell.scores[cell.scores["metric"] == metric]))
    return {
        "label": cell.row.label, "dataset": cell.dataset, "fold": cell.fold, "seed": cell.seed, "mean": mean,
        "state": "done" if cell.done else cell.problem.partition(":")[0],
        "training": provenance.clock(training.get("seconds")),
        "attempts": cell.record.get("attempts") or 0, "host": cell.record.get("host") or words.DASH,
        "finished": cell.record.get("finished") or words.DASH,
    }  # fmt: skip


def _definitions(analysis: Analysis) -> Iterator[str]:
    draws = f"{analysis.bootstrap.resamples:,}"
    yield (
        "Values: swin_umamba_nnunet's plain convention. Dice = 2TP/(2TP+FP+FN) per case and class over voxels "
        "(pixels); NSD: share of both surfaces within the tolerance of the other; HD95 and ASSD: distances in the "
        "unit of the file. Both masks empty: undefined. Exactly one empty: Dice and NSD 0, distances infinite."
    )
    yield (
        "Mean: mean of class means, over the finite values, each case first averaged over the runs (seeds, and folds "
        "that predict the same case) that scored it. Undefined and infinite values are left out and counted."
    )
    yield (
        f"95 % interval: percentile bootstrap over cases, {draws} resamples, seed {analysis.bootstrap.seed}. It says "
        "how the mean would vary with other cases, these trainings taken as given; it does not hold the chance of "
        "another training, which SD seeds shows."
    )
    yield (
        "SD seeds: sample standard deviation (n - 1) of the means of the seeds, each over all folds and only of seeds "
        "whose folds are all done. SD folds: the same of the means of folds, each over its seeds; where folds are "
        "scored on their own cases it holds the difficulty of these cases too."
    )
    yield (
        "Rank: of the mean, 1 is best, ties share the mean rank; in brackets where it lies in 95 % of the resamples. "
        "A row that lacks cases others have is not ranked."
    )
    yield (
        "Per case: the mean over the classes defined in it, averaged over runs; infinite distances stay infinite here, "
        "so that a missed structure ranks as worse than any distance. A class that is in neither mask is undefined "
        "for a row and left out for this row alone, while a false positive there counts 0 for the row that made it."
    )
    yield (
        "Paired comparison: Wilcoxon's signed-rank test over cases (two-sided; ties with 0 left out; exact up to 50 "
        "cases without ties), Holm-corrected over the rows of one dataset and metric. Effect r: matched-pairs rank-"
        "biserial correlation (R+ - R-)/(R+ + R-), from -1 to 1, positive where the row is better. Median difference "
        "with its percentile-bootstrap interval over cases. The test takes the trainings as given and the cases as "
        "independent."
    )
    yield (
        "Multiply-adds: of one forward pass at batch 1 with all deep-supervision heads, as fvcore counts, selective "
        "scans included. Time per epoch: median over the epochs of a run, then over runs, validation within the epoch "
        "included. Prediction: nnUNetv2_predict with mirroring as configured, loading and writing included."
    )
