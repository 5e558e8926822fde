"""`swin-umamba predict`: a trained model on new images, as they are."""

import argparse
import os
import sys
from pathlib import Path

from swin_umamba_nnunet._text import UserError, plural, printable

DESCRIPTION = """\
Segment new images with a trained model: a photograph, a volume, a DICOM series, or a folder of these, under any name.

  swin-umamba predict -m MODEL_FOLDER -i scan.nii.gz -o OUT
  swin-umamba predict -m MODEL_FOLDER -i photographs -o OUT --overlay
  swin-umamba predict -m MODEL_FOLDER -i dicom/PATIENT_7 -o OUT
  swin-umamba predict -m MODEL_FOLDER --channel T1=t1.nii.gz --channel FLAIR=flair.nii.gz -o OUT
  swin-umamba predict -m MODEL_FOLDER -i patients --channel T1='*/t1.nii.gz' --channel FLAIR='*/flair.nii.gz' -o OUT

Takes PNG, JPEG, BMP, GIF and TIFF for models trained on pictures (grey and colour become what the model was trained
on), and NIfTI, NRRD, MetaImage and DICOM for those trained on volumes.  A mask has its image's name, size and place in
space: PNG for pictures, the volume's own format, or .nii.gz for DICOM.  OUT/prediction.json names the mask values.
The voxels are those of nnUNetv2_predict, which is faster on many volumes, and wants nnU-Net's format.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("-m", "--model", required=True, metavar="DIR", help="folder with plans.json, dataset.json, fold_*/")
    add(
        "-i",
        "--images",
        nargs="+",
        default=[],
        metavar="PATH",
        help="images, or a folder of images, in which files CASE_0000, CASE_0001, ... are the channels of one case",
    )
    add(
        "--channel",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="for models of several channels, once for each: its name (or number from 0) and file, or a pattern in the "
        "folder -i, where what * stands for tells which files belong together; quote patterns",
    )
    add("-o", "--output", required=True, metavar="DIR", help="folder for the masks; those of earlier runs are replaced")
    add(
        "--continue",
        dest="go_on",
        action="store_true",
        help="leave out images whose mask is there already (--overlay draws those too)",
    )
    add("--overlay", action="store_true", help="draw each mask on its image too, into OUT/overlay")
    add("-f", "--folds", nargs="+", metavar="FOLD", help="0 to 4, or all (default: those there are, averaged)")
    add("-chk", "--checkpoint", default="checkpoint_final.pth", metavar="NAME", help="default: %(default)s")
    add("--device", choices=("cuda", "cpu", "mps"), help="default: an NVIDIA GPU where there is one, else the CPU")
    add(
        "--no-mirroring",
        action="store_true",
        help="do not average over mirrored images: 4 times faster in 2D, 8 times in 3D, and a little less accurate",
    )


def run(args: argparse.Namespace) -> None:
    """Predict, and say what happens line by line.

    Raises:
        ModelError: nothing could be predicted (exit code 2), or not all images (1).
        UserError: an option is not as expected, or it was interrupted (130).
    """
    channels = dict(text.partition("=")[::2] for text in args.channel)
    if len(channels) < len(args.channel) or not all(channels.values()):
        raise UserError(f"--channel {' '.join(args.channel)}: expected NAME=FILE, once for each channel")
    if not (args.images or channels):
        raise UserError("nothing to predict: give images with -i, or the files of one image with --channel")
    _say(f"Loading {args.model}")
    from swin_umamba_nnunet.models.predicting import RECORD, predict

    try:
        masks = predict(
            args.model,
            args.images,
            args.output,
            channels=channels,
            overwrite=not args.go_on,
            overlay=args.overlay,
            say=_say,
            progress=sys.stderr.isatty(),
            folds=args.folds,
            checkpoint=args.checkpoint,
            device=args.device,
            mirroring=not args.no_mirroring,
        )
    except KeyboardInterrupt:
        raise UserError("interrupted; the same command with --continue does the rest", 130) from None
    pictures = f", pictures in {os.path.join(args.output, 'overlay')}" if args.overlay else ""
    _say(f"{plural(len(masks), 'mask')} in {args.output}{pictures}; their values: {Path(args.output, RECORD)}")


def _say(line: str) -> None:
    print(printable(line), flush=True)
