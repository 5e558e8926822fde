"""`swin-umamba bench ops`: options of `benchmark.ops`."""

import argparse
from pathlib import Path

DESCRIPTION = """\
The selective scan on this machine: values and gradients of each backend against the float64 reference, then its speed.

    swin-umamba bench ops
    swin-umamba bench ops --device cuda --size 80 80 --batch 12 --json mine.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add = parser.add_argument
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add("--backend", metavar="NAME", help="only this backend (default: every one that can run)")
    add("--size", type=int, nargs=2, default=(64, 64), metavar=("H", "W"),
        help="image height and width in positions (default: 64 64)")  # fmt: skip
    add("--batch", type=int, default=1, metavar="N", help="images per call (default: 1)")
    add("--channels", type=int, default=192, metavar="D", help="inner width d_inner (default: 192)")
    add("--states", type=int, default=16, metavar="N", help="states per channel, d_state (default: 16)")
    add("--threads", type=int, default=None, metavar="N", help="CPU threads (default: torch's choice)")
    add("--seconds", type=float, default=2.0, metavar="S", help="time spent on each figure (default: 2)")
    add("--json", type=Path, metavar="FILE", help="also write the figures to this file")


def run(args: argparse.Namespace) -> int:
    """Check, measure, print."""
    from tests.speed import ops

    return ops.run(args)
