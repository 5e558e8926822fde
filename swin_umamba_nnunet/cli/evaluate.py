"""`swin-umamba evaluate`: scores of a prediction folder, and what each of them means."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from swin_umamba_nnunet._text import printable
from swin_umamba_nnunet.cli._dataset import dataset_json_of
from swin_umamba_nnunet.cli.errors import CliError

DESCRIPTION = """\
Score a folder of predictions against a folder of ground truth: Dice, IoU, NSD, HD95, mean surface distance and F1 of
objects, per case and class, with intervals over the cases.  Reads whatever nnU-Net reads (NIfTI, NRRD, MHA, PNG, BMP,
TIFF).  Files are paired by name; all of them are checked before anything is computed.

--protocol plain (the default) is the convention to trust.  The others reproduce the evaluation scripts of the papers
to the last digit, name what is peculiar about them, and show the plain figures beside theirs.
"""

_PROTOCOLS = {
    "plain": "no rounding, no cropping, true surfaces and contours, empty cases counted",
    "abdomen": "Swin-UMamba and U-Mamba, DSC and NSD of 13 abdominal organs",
    "endoscopy": "Swin-UMamba and U-Mamba, DSC and NSD of instruments in endoscopy images",
    "cells": "Swin-UMamba and U-Mamba, F1 of cells (ground truth: instance ids)",
    "isic": "VM-UNet, pooled mIoU and DSC of skin lesions",
    "synapse": "TransUNet and VM-UNet, DSC and HD95 of 8 organs",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb; what is not given stays None, so that a protocol can tell what was asked of it."""
    # fmt: off
    parser.add_argument("-gt", "--ground-truth", type=Path, required=True, metavar="FOLDER", help="reference labels")
    parser.add_argument("-pred", "--predictions", type=Path, required=True, metavar="FOLDER", help="predicted labels")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER",
                        help="write metrics.csv (every value) and summary.json (nnU-Net's layout and more) here")
    parser.add_argument("--protocol", choices=tuple(_PROTOCOLS), default="plain",
                        help="; ".join(f"{name}: {what}" for name, what in _PROTOCOLS.items()))

    classes = parser.add_argument_group(
        "classes", "by default those of the dataset.json beside the predictions or the ground truth, else every value "
        "in the files").add_mutually_exclusive_group()
    classes.add_argument("--dataset", metavar="ID", help="number or name of a dataset in nnUNet_raw")
    classes.add_argument("--dataset-json", type=Path, metavar="FILE", help="nnU-Net's dataset.json")
    classes.add_argument("--labels", nargs="+", metavar="LABEL",
                         help="numbers, NAME=NUMBER, or NAME=NUMBER,NUMBER for a region")

    plain = parser.add_argument_group("plain")
    plain.add_argument("--tolerance", nargs="+", metavar="DISTANCE",
                       help="of the NSD in mm (px without a physical spacing): a number, and NAME=NUMBER for single "
                            "classes (default: 2)")
    plain.add_argument("--iou", nargs="+", type=float, dest="iou_thresholds", metavar="THRESHOLD",
                       help="F1 of objects matched at these IoU thresholds (also for cells; default there: 0.5)")
    plain.add_argument("--instances", choices=("components", "ids", "gt-ids"),
                       help="what an object is: a connected component of a class; a value of the files, which then "
                            "hold ids; or ids in the ground truth and components of class 1 in the predictions")
    plain.add_argument("--no-distances", action="store_const", const=False, dest="distances",
                       help="leave out NSD, HD95 and mean surface distance")
    plain.add_argument("--medpy-hd95", action="store_const", const=True,
                       help="HD95 by MedPy's definition (border voxels) too, also for abdomen")

    papers = parser.add_argument_group("the papers' protocols")
    papers.add_argument("--count-border-cells", action="store_const", const=True,
                        help="cells: keep the cells at the border")
    papers.add_argument("--isic-size", type=int, metavar="PIXELS",
                        help="isic: side to which everything is resized first, 0 for as it is (default: 256)")
    papers.add_argument("--resize-predictions", action="store_const", const=True,
                        help="synapse: bring slices of predictions to the ground truth's size as the authors do")

    running = parser.add_argument_group("running")
    running.add_argument("--allow-missing", action="store_true",
                         help="evaluate only the cases that both folders have, and name the others")
    running.add_argument("--file-ending", metavar="ENDING", help="only these files, for example .nii.gz")
    running.add_argument("-np", "--processes", type=int, metavar="N",
                         help="worker processes, one case in memory each (default: one per core, 8 at most)")
    running.add_argument("--resamples", type=int, default=10_000, metavar="N",
                         help="of the cases, for the intervals (default: %(default)s)")
    running.add_argument("--seed", type=int, default=0, metavar="N", help="of the resamples (default: %(default)s)")
    # fmt: on


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, then write.

    Returns:
        0.

    Raises:
        CliError: bad input, or scores that cannot be written, see `evaluate_folders`.
    """
    from swin_umamba_nnunet import evaluation
    from swin_umamba_nnunet.evaluation.table import format_result, worst_cases

    dataset_json = args.dataset_json if args.dataset is None else dataset_json_of(args.dataset)


    def show(result: "evaluation.EvaluationResult") -> None:
        compared = f"{len(result.cases)} cases of {args.predictions} against {args.ground_truth}"
        print(f"{args.protocol} protocol: {compared}\n")
        print(format_result(result), flush=True)

    try:
        result = evaluation.evaluate_folders(
            args.ground_truth, args.predictions, labels=args.labels, dataset_json=dataset_json, protocol=args.protocol,
            output=args.output, processes=args.processes, tolerance=args.tolerance,
            iou_thresholds=args.iou_thresholds, instances=args.instances, distances=args.distances,
            medpy_hd95=args.medpy_hd95, count_border_cells=args.count_border_cells, isic_size=args.isic_size,
            resize_predictions=args.resize_predictions, allow_missing=args.allow_missing,
            file_ending=args.file_ending, resamples=args.resamples, seed=args.seed, progress=True,
            before_writing=show,
        )  # fmt: skip
    except evaluation.EvaluationError as error:
        raise CliError(str(error)) from error
    if args.output is not None:
        print(f"\nWritten: {args.output / 'metrics.csv'} and {args.output / 'summary.json'}")
    else:
        print("\nNothing was written; -o FOLDER keeps every value in metrics.csv and summary.json.")
    if args.protocol == "plain" and args.instances is None and len(result.cases) > 1:
        command = _overlay_command(args, [case.name for case in worst_cases(result)])
        print(f"Look at the worst cases with   {printable(command)}")
    return 0


def _overlay_command(args: argparse.Namespace, cases: Sequence[str]) -> str:
    """The command that draws these cases; only the user knows where the images are."""
    command = ["swin-umamba", "overlay", "-i", "IMAGES", "-gt", args.ground_truth, "-pred", args.predictions]
    for option, value in (
        ("--dataset", args.dataset), ("--dataset-json", args.dataset_json), ("--file-ending", args.file_ending)
    ):  # fmt: skip
        command += [option, value] if value is not None else []
    command += ["--labels", *args.labels] if args.labels else []
    return shlex.join(map(str, [*command, *(["--cases", *cases] if cases else [])]))
