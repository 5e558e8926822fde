"""`swin-umamba evaluate`: scores of a prediction folder, and what each of them means."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from swin_umamba_nnunet._text import printable
from swin_umamba_nnunet.cli import _dataset

DESCRIPTION = """\
Score a folder of predictions against a folder of ground truth: Dice, IoU, NSD, HD95, mean surface distance and F1 of
objects, per case and class, with intervals over the cases.  Reads whatever nnU-Net reads (NIfTI, NRRD, MHA, PNG, BMP,
TIFF).  Files are paired by name; all of them are checked before anything is computed.

--protocol plain (the default) is the convention to trust.  The others reproduce the evaluation scripts of the papers
to the last digit, name what is peculiar about them, and show the plain figures beside theirs.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb and of every protocol; what is not given stays None, so that a protocol can tell."""
    from swin_umamba_nnunet.evaluation.protocols import PROTOCOLS, flag_of
    from swin_umamba_nnunet.evaluation.statistics import RESAMPLES

    _dataset.add_arguments(parser)
    add = parser.add_argument
    written = "write metrics.csv (every value) and summary.json (nnU-Net's layout and more) here"
    add("-o", "--output", type=Path, metavar="DIR", help=written)
    summaries = "; ".join(f"{name}: {protocol.summary}" for name, protocol in PROTOCOLS.items())
    add("--protocol", choices=tuple(PROTOCOLS), default="plain", help=summaries)
    add("-np", "--processes", type=int, metavar="N", help="each with one case in memory (default: cores, 8 at most)")
    add("--resamples", type=int, default=RESAMPLES, metavar="N", help="of the bootstrap (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default: %(default)s)")
    there = {"labels", "dataset_json"}
    for name, protocol in PROTOCOLS.items():
        group = parser.add_argument_group(name)
        for option in protocol.options().values():
            if option.name not in there:
                group.add_argument(flag_of(option), dest=option.name, **option.metadata["argument"])
                there.add(option.name)


def run(args: argparse.Namespace) -> None:
    """Evaluate, print the table, then write.

    Raises:
        EvaluationError: bad input, or scores that cannot be written, see `evaluate_folders`.
    """
    from swin_umamba_nnunet import evaluation
    from swin_umamba_nnunet.evaluation.output import format_result, worst_cases

    def show(result: "evaluation.EvaluationResult") -> None:
        compared = f"{len(result.cases)} cases of {args.predictions} against {args.ground_truth}"
        print(f"{args.protocol} protocol: {compared}\n")
        print(format_result(result), flush=True)

    options = {name: getattr(args, name) for one in evaluation.PROTOCOLS.values() for name in one.options()}
    options["dataset_json"] = _dataset.dataset_json(args)
    result = evaluation.evaluate_folders(
        args.ground_truth,
        args.predictions,
        protocol=evaluation.from_options(args.protocol, options),
        output=args.output,
        processes=args.processes,
        allow_missing=args.allow_missing,
        file_ending=args.file_ending,
        resamples=args.resamples,
        seed=args.seed,
        progress=True,
        before_writing=show,
    )
    if args.output is not None:
        print(f"\nWritten: {args.output / 'metrics.csv'} and {args.output / 'summary.json'}")
    else:
        print("\nNothing was written; -o FOLDER keeps every value in metrics.csv and summary.json.")
    if args.protocol == "plain" and args.instances is None and len(result.cases) > 1:
        command = _overlay_command(args, [case.name for case in worst_cases(result)])
        print(f"Look at the worst cases with   {printable(command)}")


def _overlay_command(args: argparse.Namespace, cases: Sequence[str]) -> str:
    """The command that draws these cases; only the user knows where the images are."""
    command = ["swin-umamba", "overlay", "-i", "IMAGES", "-gt", args.ground_truth, "-pred", args.predictions]
    for name in ("dataset", "dataset_json", "file_ending"):
        if (value := getattr(args, name)) is not None:
            command += [f"--{name.replace('_', '-')}", value]
    for name, values in (("--labels", args.labels), ("--cases", cases)):
        command += [name, *values] if values else []
    return shlex.join(map(str, command))
