"""All numbers of a report, computed once and shown by page, CSV and LaTeX alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from swin_umamba_nnunet.benchmark.files import MatrixError
from swin_umamba_nnunet.benchmark.report import pitfalls, summary
from swin_umamba_nnunet.benchmark.report.arenas import Arena, make_arenas
from swin_umamba_nnunet.benchmark.report.collect import Benchmark, Cell
from swin_umamba_nnunet.benchmark.report.statistics import Comparison, compare, seed_means
from swin_umamba_nnunet.benchmark.report.summary import Suitability, Summary
from swin_umamba_nnunet.evaluation.records import Statistic
from swin_umamba_nnunet.evaluation.statistics import Bootstrap

METRICS = ("Dice", "NSD", "HD95")  # reported, as far as they were evaluated, where nobody asks for others


@dataclass(frozen=True)
class ArenaResult:
    """The numbers of one arena; mappings by metric, in the order they are shown.

    Attributes:
        arena: what they are about.
        summaries: per row.
        classes: row's label -> class -> statistic.
        comparisons: with the baseline.
        seeds: label -> seed -> mean, of the first metric.
        suitability: of the first metric.
        costs: per row.
    """

    arena: Arena
    summaries: Mapping[str, Sequence[Summary]]
    classes: Mapping[str, Mapping[str, Mapping[str, Statistic]]]
    comparisons: Mapping[str, Sequence[Comparison]]
    seeds: Mapping[str, Mapping[int, float]]
    suitability: Suitability | None
    costs: Sequence[Mapping[str, Any]]

    @property
    def metric(self) -> str:
        """The one that decides."""
        return self.arena.metrics[0]


@dataclass(frozen=True)
class Analysis:
    """Everything.

    Attributes:
        benchmark: what was read.
        baseline, baseline_why: label of the row the others are compared with, and who chose it.
        bootstrap: of all intervals.
        results: one per arena.
        checklist: the pitfalls.
    """

    benchmark: Benchmark
    baseline: str
    baseline_why: str
    bootstrap: Bootstrap
    results: tuple[ArenaResult, ...]
    checklist: tuple[pitfalls.Item, ...]

    @cached_property
    def missing(self) -> tuple[Cell, ...]:
        """Cells without scores."""
        return tuple(cell for cell in self.benchmark.cells if not cell.done)

    @property
    def mean_ranks(self) -> dict[str, float]:
        """Label -> mean rank over the arenas, of rows that are ranked in all of them; {} for a single arena."""
        if len(self.results) < 2:
            return {}
        ranks: dict[str, list[float]] = {}
        for result in self.results:
            for item in result.summaries[result.metric]:
                ranks.setdefault(item.label, []).append(item.rank)
        return {label: sum(found) / len(found) for label, found in ranks.items() if not any(r != r for r in found)}


def analyse(benchmark: Benchmark, metrics: Sequence[str], baseline: str, bootstrap: Bootstrap) -> Analysis:
    """Compute everything.

    Args:
        benchmark: from `read_benchmark`.
        metrics: names to report, the deciding one first; () for those of `METRICS` that there are.
        baseline: label or trainer; "" takes that of the configuration, or else chooses.
        bootstrap: of the intervals.

    Raises:
        MatrixError: no cell has scores, no such baseline or metric.
    """
    label, why = choose_baseline(benchmark, baseline)
    done = [cell for cell in benchmark.cells if cell.done]
    if not done:
        first = benchmark.cells[0]
        raise MatrixError(
            f"{benchmark.folder} has no finished cell yet, so there is nothing to report ({first.name}: "
            f"{first.problem}); look at it with   swin-umamba benchmark status {benchmark.folder}"
        )
    there = list(dict.fromkeys(name for cell in done for name in cell.scores["metric"].unique()))
    metrics = metrics or [name for name in METRICS if name in there] or there[:1]
    unknown = [name for name in metrics if name not in there]
    if unknown:
        raise MatrixError(f"no cell has the metric {unknown[0]!r}; its metrics.csv files have {', '.join(there)}")
    results = tuple(_analyse(arena, label, bootstrap) for arena in make_arenas(benchmark, metrics))
    comparisons = [item for result in results for found in result.comparisons.values() for item in found]
    suitabilities = {result.arena.title: result.suitability for result in results}
    items = pitfalls.checklist(benchmark, [result.arena for result in results], suitabilities, comparisons)
    return Analysis(benchmark, label, why, bootstrap, results, tuple(items))


def _analyse(arena: Arena, baseline: str, bootstrap: Bootstrap) -> ArenaResult:
    classes = {metric: summary.class_table(arena, metric, bootstrap) for metric in arena.metrics}
    return ArenaResult(
        arena,
        {metric: summary.summarise(arena, metric, classes[metric], bootstrap) for metric in arena.metrics},
        classes,
        {metric: compare(arena, metric, baseline, bootstrap) for metric in arena.metrics},
        seed_means(arena, arena.metrics[0]),
        summary.suitability(arena, arena.metrics[0]),
        [summary.costs(arena, row) for row in arena.rows],
    )


def choose_baseline(benchmark: Benchmark, wanted: str) -> tuple[str, str]:
    """Label of the baseline, and who chose it.

    Raises:
        MatrixError: no row is called so.
    """
    names = {row.trainer: row.label for row in reversed(benchmark.rows)}
    labels = [row.label for row in benchmark.rows]
    for name, why in ((wanted, "asked for"), (str(benchmark.config.get("baseline") or ""), "of the configuration")):
        if not name:
            continue
        if name in labels or name in names:
            return name if name in labels else names[name], why
        raise MatrixError(f"the baseline {name!r} is none of the rows; choose one of {', '.join(labels)}")
    for row in benchmark.rows:
        if row.identity is not None and row.identity.stock and not row.identity.residual:
            return row.label, "nnU-Net itself, as none was named"
    return labels[0], "the first row, as none was named"
