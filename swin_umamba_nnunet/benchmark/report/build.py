"""From a benchmark's folder to the files of its report."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from swin_umamba_nnunet._atomic import write_text
from swin_umamba_nnunet.benchmark.files import MatrixError
from swin_umamba_nnunet.benchmark.report import latex, page
from swin_umamba_nnunet.benchmark.report.analysis import Analysis, analyse
from swin_umamba_nnunet.benchmark.report.collect import read_benchmark
from swin_umamba_nnunet.benchmark.report.tables import csv_files
from swin_umamba_nnunet.evaluation.statistics import Bootstrap

PAGE, LATEX = "report.html", "tables.tex"


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        metrics: names in metrics.csv; the first decides ranks, charts and pictures.  () for `analysis.METRICS`.
        baseline: label or trainer of the row the others are compared with; "" for that of the configuration.
        published: show the papers' tables too.
        pictures: how many cases per dataset.
        bootstrap: of all intervals.
    """

    metrics: tuple[str, ...] = ()
    baseline: str = ""
    published: bool = False
    pictures: int = 3
    bootstrap: Bootstrap = field(default_factory=Bootstrap)


def write_report(
    folder: Path,
    output: Path,
    options: ReportOptions | None = None,
    said: Callable[[str], None] = lambda text: None,
) -> tuple[Analysis, list[Path]]:
    """Read a benchmark, and write its report when all of it is made.

    Args:
        folder: of the benchmark.
        output: folder for the files; those of an earlier report are replaced, each as a whole.
        options: what to show.
        said: is told what comes next.

    Returns:
        The numbers, and the files, the page first.

    Raises:
        MatrixError: see `read_benchmark` and `analyse`; or the folder cannot be written.
    """
    options = options or ReportOptions()
    said("reading the cells")
    benchmark = read_benchmark(folder)
    said("computing the statistics")
    analysis = analyse(benchmark, options.metrics, options.baseline, options.bootstrap)
    said("drawing the charts and pictures")
    files = {PAGE: page.render(analysis, options.pictures, options.published)}
    files |= {LATEX: latex_tables(analysis), **csv_files(analysis)}
    said("writing")
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_text(output / name, text)
    except OSError as error:
        raise MatrixError(
            f"the report cannot be written to {output} ({error.strerror}); name another with -o"
        ) from error
    return analysis, [output / name for name in files]


def latex_tables(analysis: Analysis) -> str:
    """All of them."""
    parts = [latex.HEAD]
    for result in analysis.results:
        title, units = result.arena.title, {metric: result.arena.unit(metric) for metric in result.arena.metrics}
        parts += [
            latex.means_table(title, found, units[metric], f"{title}-{metric}-means")
            for metric, found in result.summaries.items()
        ]
        parts += [
            latex.comparison_table(title, found, units[metric], f"{title}-{metric}-paired")
            for metric, found in result.comparisons.items() if found
        ]  # fmt: skip
        parts.append(latex.cost_table(title, result.costs, f"{title}-cost"))
    return "\n".join(parts)
