"""`swin-umamba bench WHAT`: hand over to the benchmark room."""

import argparse
import importlib

from swin_umamba_nnunet.cli.errors import CliError

DESCRIPTION = """\
Measure how fast this machine runs the parts of the networks and whole networks, and show what was measured.

    swin-umamba bench ops                             the selective scan: exact? fast?
    swin-umamba bench networks --json mine.json       networks: training step and inference, memory
    swin-umamba bench report mine.json --plot mine.png
"""

# what -> (module with DESCRIPTION, add_arguments(parser) and run(args) -> exit code, one line of help)
BENCHMARKS = {
    "ops": (
        "swin_umamba_nnunet.cli._bench.ops",
        "the selective scan: each backend checked against the reference, timed",
    ),
    "networks": (
        "swin_umamba_nnunet.cli._bench.networks",
        "whole networks: training step, inference, memory; fused against materialised scans",
    ),
    "report": (
        "swin_umamba_nnunet.cli._bench.report",
        "a table and a plot of what was measured",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-verb per benchmark."""
    parsers = parser.add_subparsers(dest="benchmark", metavar="WHAT", title="benchmarks", required=True)
    for name, (module_name, summary) in BENCHMARKS.items():
        module = importlib.import_module(module_name)
        own = parsers.add_parser(
            name, help=summary, description=module.DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(own)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark that was asked for."""
    module_name, _ = BENCHMARKS[args.benchmark]
    try:
        return importlib.import_module(module_name).run(args)
    except ValueError as error:
        raise CliError(str(error)) from error
