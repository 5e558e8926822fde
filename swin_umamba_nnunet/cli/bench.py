"""`swin-umamba bench WHAT`: hand over to the benchmark room."""

import argparse
import importlib

from swin_umamba_nnunet.cli.errors import CliError

DESCRIPTION = "Measure how fast this machine runs the parts of the networks."

# what -> (module with add_arguments(parser) and run(args) -> exit code, one line of help)
BENCHMARKS = {
    "ops": (
        "swin_umamba_nnunet.benchmark.ops",
        "the selective scan: each backend checked against the reference, timed",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-verb per benchmark."""
    parsers = parser.add_subparsers(dest="benchmark", metavar="WHAT", title="benchmarks", required=True)
    for name, (module_name, summary) in BENCHMARKS.items():
        own = parsers.add_parser(name, help=summary, description=summary)
        importlib.import_module(module_name).add_arguments(own)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark that was asked for."""
    module_name, _ = BENCHMARKS[args.benchmark]
    try:
        return importlib.import_module(module_name).run(args)
    except ValueError as error:
        raise CliError(str(error)) from error
