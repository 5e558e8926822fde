"""`swin-umamba benchmark report`: the tables and charts of a benchmark, finished or not."""

import argparse
from pathlib import Path

from swin_umamba_nnunet._text import printable

DESCRIPTION = """\
Write the report of a benchmark: one HTML file that works from disk and loads nothing, with CSV and LaTeX tables beside
it.  Reads the benchmark's folder only; cells that are missing or have failed are named in it.

    swin-umamba benchmark report bench
    swin-umamba benchmark report bench --baseline nnUNetTrainer_10epochs --published
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the action."""
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="the benchmark's folder")
    add("-o", "--output", type=Path, metavar="DIR", help="where the report goes (default: report/ in that folder)")
    add("--baseline", default="", metavar="ROW",
        help="label or trainer of the row the others are compared with (default: that of the configuration, or else "
             "nnU-Net)")  # fmt: skip
    add("--metrics", nargs="+", default=[], metavar="NAME",
        help="as in metrics.csv; the first decides ranks, charts and pictures (default: Dice NSD HD95)")  # fmt: skip
    add("--published", action="store_true",
        help="also show the papers' tables, marked as published elsewhere under another protocol")  # fmt: skip
    add("--pictures", type=int, default=3, metavar="N",
        help="show N cases per dataset on which the trainers differ most (default: %(default)s)")  # fmt: skip
    add("--resamples", type=int, default=10_000, metavar="N",
        help="of the cases, for the intervals (default: %(default)s)")  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="of the resamples (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write the report, print where it is and what is missing in it.

    Returns:
        0.

    Raises:
        CliError: an option out of range.
        MatrixError: there is nothing to report on, or the report cannot be written.
    """
    from swin_umamba_nnunet.cli.errors import CliError

    for name, value, least in (
        ("pictures", args.pictures, 0),
        ("resamples", args.resamples, 1),
        ("seed", args.seed, 0),
    ):
        if value < least:
            raise CliError(f"--{name} {value}: expected {least} or more")

    from swin_umamba_nnunet.benchmark.report import ReportOptions, write_report
    from swin_umamba_nnunet.evaluation.statistics import Bootstrap

    options = ReportOptions(
        tuple(dict.fromkeys(args.metrics)), args.baseline, args.published, args.pictures,
        Bootstrap(args.resamples, args.seed),
    )  # fmt: skip
    output = args.output or args.folder / "report"
    analysis, files = write_report(args.folder, output, options, lambda text: print(f"{text} ...", flush=True))
    for cell in analysis.benchmark.missing:
        print(printable(f"no scores: {cell.title} ({cell.problem})"))
    done = len(analysis.benchmark.runs) - len(analysis.benchmark.missing)
    print(f"\n{files[0].absolute()}   ({done} of {len(analysis.benchmark.runs)} runs)")
    print(f"beside it: {', '.join(file.name for file in files[1:])}")
    return 0
