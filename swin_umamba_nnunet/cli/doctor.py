"""`swin-umamba doctor`: what is installed, what can run here, whether nnU-Net finds the trainers; what to do if not."""

import argparse
import json
import os
import re
from collections.abc import Callable

from swin_umamba_nnunet.cli._doctor import machine, scans, trainers, weights
from swin_umamba_nnunet.cli._doctor.section import Section

DESCRIPTION = """\
Check this installation: versions, devices, which backend runs the selective scan, whether it computes values and
gradients right and why the others do not run, whether nnU-Net finds the trainers, the environment variables, and the
ImageNet weights on this machine.  It takes some ten seconds, more where a backend is compiled for the first time.

Ends with what to do about what is wrong; the exit code is 0 if nothing is, else 1.
"""

CHECKS: tuple[Callable[[], Section], ...] = (
    machine.versions,
    machine.devices,
    scans.backends,
    trainers.trainers,
    machine.environment,
    weights.weights,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--json", action="store_true",
                        help="print the findings as JSON, to paste into a bug report; the home folder is written "
                             "as ~")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print the findings, then the advice; 1 if there is any."""
    sections = []
    for check in CHECKS:
        section = check()
        sections.append(section)
        if not args.json:
            print("\n".join(section.lines) + "\n", flush=True)
    problems = [problem for section in sections for problem in section.problems]
    if args.json:
        report = {section.key: section.data for section in sections} | {"problems": problems}
        print(_without_home(json.dumps(report, indent=2)))
    elif problems:
        print("To put right:")
        for problem in problems:
            print(f"  - {problem}")
    else:
        print("All is well.")
    return 1 if problems else 0


def _without_home(text: str) -> str:
    """Whoever pastes this into a public issue need not tell the name of the account."""
    home = os.path.expanduser("~")
    if len(home) < 2 or home == "~":
        return text
    return re.sub(re.escape(json.dumps(home)[1:-1]) + r'(?=[/\\":])', "~", text)
