"""`swin-umamba doctor`: what is installed, what can run here, whether nnU-Net finds the trainers; what to do if not."""

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Callable

from swin_umamba_nnunet.cli._doctor import machine, scans, trainers, weights
from swin_umamba_nnunet.cli._doctor.section import Section

logger = logging.getLogger(__name__)

DESCRIPTION = """\
Check this installation: versions, devices, which backend runs the selective scan, whether it computes values and
gradients right (on every GPU) and why the others do not run, whether nnU-Net finds the trainers, the environment
variables, and the ImageNet weights on this machine.  It takes half a minute, more where a backend is compiled for the
first time.

Ends with what a training still needs here, and with what to do about what is wrong with the installation; the exit code
is 0 if nothing is wrong with it, else 1.
"""

CHECKS: tuple[tuple[str, Callable[[], Section]], ...] = (
    ("versions", machine.versions),
    ("devices", machine.devices),
    ("selective scan (every backend is tested, and compiled first where that has not been done)", scans.backends),
    ("trainers (nnU-Net is asked for them)", trainers.trainers),
    ("environment variables", machine.environment),
    ("ImageNet weights", weights.weights),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--json", action="store_true",
                        help="print the findings as JSON, to paste into a bug report; the home folder is written "
                             "as ~")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print the findings, each under a title that is there before the check begins, then the advice; 1 if there is any.

    With --json the titles go to stderr.
    """
    sections = []
    for title, check in CHECKS:
        print(title, file=sys.stderr if args.json else sys.stdout, flush=True)
        section = _found_by(check)
        sections.append(section)
        if not args.json:
            print("\n".join(section.lines) + "\n", flush=True)
    missing = [need for section in sections for need in section.missing]
    problems = [problem for section in sections for problem in section.problems]
    if args.json:
        report = {section.key: section.data for section in sections} | {"missing": missing, "problems": problems}
        print(_without_home(json.dumps(report, indent=2)))
        return 1 if problems else 0
    print("Not ready to train yet:" if missing else "Ready to train.")
    print("\n".join(f"  - {need}" for need in missing))
    print("Installation: something is wrong. To put right:" if problems else "Installation: all is well.")
    for problem in problems:
        print(f"  - {problem}")
    return 1 if problems else 0


def _found_by(check: Callable[[], Section]) -> Section:
    """What a check finds; one that fails itself is a finding too, or a broken library would hide all the others."""
    try:
        return check()
    except Exception as error:
        logger.debug("the check %s failed", check.__name__, exc_info=True)
        reason = (str(error).strip() or "no message").splitlines()[0]
        said = f"could not be checked: {type(error).__name__}: {reason}"
        return Section(check.__name__, {"message": said}, [f"  {said}"], [f"{check.__name__} {said}"])


def _without_home(text: str) -> str:
    """Whoever pastes this into a public issue need not tell the name of the account."""
    home = os.path.expanduser("~")
    if len(home) < 2 or home == "~":
        return text
    return re.sub(re.escape(json.dumps(home)[1:-1]) + r'(?=[/\\":])', "~", text)
