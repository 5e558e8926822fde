"""`swin-umamba benchmark WHAT`: the fair comparison of trainers, from a list of them to scores on the same cases."""

import argparse
import importlib

from swin_umamba_nnunet.cli.errors import CliError

DESCRIPTION = """\
Compare trainers on the same plans, split, cases and evaluation: datasets x trainers x folds x seeds, each cell trained
and predicted by nnU-Net's own commands and scored by this package's evaluation.

    swin-umamba benchmark run --config bench.toml --dry-run     what would run, and how long it would take
    swin-umamba benchmark run --config bench.toml               run it; interrupt and repeat as you like
    swin-umamba benchmark status bench --watch 10               how far it is
    swin-umamba benchmark report bench                          what it shows: HTML, CSV, LaTeX
"""

# what -> (module with DESCRIPTION, add_arguments(parser) and run(args) -> exit code, one line of help)
ACTIONS = {
    "run": ("swin_umamba_nnunet.cli._benchmark.run", "check a benchmark, then run what of it is not done yet"),
    "status": ("swin_umamba_nnunet.cli._benchmark.status", "a table of its cells: state, epoch, time left"),
    "report": ("swin_umamba_nnunet.cli._benchmark.report", "tables, charts and a checklist of what it has shown"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-verb per action."""
    parsers = parser.add_subparsers(dest="action", metavar="WHAT", title="actions", required=True)
    for name, (module_name, summary) in ACTIONS.items():
        module = importlib.import_module(module_name)
        own = parsers.add_parser(name, help=summary, description=module.DESCRIPTION,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
        module.add_arguments(own)


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    from swin_umamba_nnunet.benchmark.files import MatrixError

    module_name, _ = ACTIONS[args.action]
    try:
        return importlib.import_module(module_name).run(args)
    except MatrixError as error:
        raise CliError(str(error)) from error
