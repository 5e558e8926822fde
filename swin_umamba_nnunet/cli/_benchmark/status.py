"""`swin-umamba benchmark status`: read from the benchmark's folder, so anybody may look at any time."""

import argparse
import sys
import time
from pathlib import Path

DESCRIPTION = """\
Show every cell of a benchmark: its state, how many epochs it has trained, and how much training is left.  Reads the
benchmark's folder only, so it works while another process, or a cluster, runs it.
"""
_CLEAR = "\x1b[2J\x1b[H"  # screen, and cursor to its top left


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the action."""
    parser.add_argument("output", type=Path, help="the benchmark's folder")
    parser.add_argument("--watch", type=float, nargs="?", const=10.0, metavar="SECONDS",
                        help="show it again every so many seconds (default 10) until all is done")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print the table, once or again and again; 1 if a cell has failed."""
    from swin_umamba_nnunet.benchmark.status import read_status, render

    folder = args.output.expanduser().absolute()
    if args.watch and not (folder / "benchmark.json").is_file():
        print(f"{folder} has no benchmark.json yet; waiting until a benchmark begins in there ...", flush=True)
        while not (folder / "benchmark.json").is_file():
            time.sleep(args.watch)
    while True:
        statuses = read_status(folder)
        clear = _CLEAR if args.watch and sys.stdout.isatty() else ""
        print(f"{clear}{render(statuses)}", flush=True)
        if not args.watch or all(status.state in ("done", "failed") for status in statuses):
            return int(any(status.state == "failed" for status in statuses))
        time.sleep(args.watch)
