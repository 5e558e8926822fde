"""Options of the five layouts of `swin-umamba convert`, and what their help says."""

import argparse
from pathlib import Path

from swin_umamba_nnunet._distribution import install_line

_ISIC = """\
ISIC 2017 or 2018 skin lesions.  SOURCE is VM-UNet's tree

    train/images/*.png   train/masks/*.png   val/images/*.png   val/masks/*.png

(.jpg works too, and so do the archive's file names, ISIC_0000000_segmentation.png), or the folder in which the
archive's own downloads were unpacked side by side (ISIC-2017_Training_Data, ISIC-2017_Training_Part1_GroundTruth, ...;
ISIC2018_Task1-2_Training_Input, ISIC2018_Task1_Training_GroundTruth, ...).  Masks are cut at 127 of 255.
"""
_SYNAPSE = f"""\
Synapse multi-organ CT as TransUNet's authors hand it out:

    train_npz/case0005_slice000.npz ...   test_vol_h5/case0001.npy.h5 ...

Slices become volumes; the test volumes become imagesTs and labelsTs.  The source stores no voxel size, and none is
invented: 1 x 1 x 1 mm is written because nnU-Net needs a number, and dataset.json says so.
Needs h5py:   {install_line("synapse")}
"""
_UMAMBA = """\
The datasets that U-Mamba's authors publish, already in nnU-Net's layout: Dataset702_AbdomenMR, Dataset703_NeurIPSCell,
Dataset704_Endovis17.  Every file is read and checked, dataset.json is repaired (702 counts 60 cases where 50 lie), and
703's instance masks go to instancesTs for `swin-umamba evaluate --protocol cells`.  Files are copied unchanged.
"""
_IMAGES = """\
2D images and masks: PNG, JPEG, BMP, TIFF; grey, colour, 16 bit, with alpha or palette.  SOURCE holds folders named

    images and masks     or     train/images, train/masks, val/..., test/...     or     images/train, masks/train, ...

and an image's mask has its name, or its name with _mask, _seg, _label, ... at the end.  Otherwise say where they are:

    --images 'photos/*.jpg' --masks 'annotations/*_lesion.png' --mask-key 'annotations/(.*)_lesion'

Mask values 0/255, 0/1 and 0, 1, 2, ... are understood; name others, once per label and in the order you want:

    --label background='#000000' --label tumour='#ff0000' --label stroma='#00ff00' --label ignore='#ffffff'
"""
_VOLUMES = """\
Volumes and segmentations: NIfTI, NRRD, MetaImage, and folders that each hold one DICOM series.  SOURCE holds folders
named images and masks (or labels, ...), as for `convert images`; or say where they are:

    --images '*/image.nii.gz' --masks '*/seg.nii.gz'                             one folder per patient
    --images T1='*/t1.nii.gz' --images T2='*/t2.nii.gz' --masks '*/seg.nii.gz'    several channels
    --images dicom --masks segmentations --modality CT                            dicom/PATIENT/*.dcm

Image and mask must lie at the same place in space; the report says by how many millimetres they do not.
"""


def add_layouts(parser: argparse.ArgumentParser) -> None:
    """The sub-commands, one per layout."""
    layouts = parser.add_subparsers(dest="layout", metavar="LAYOUT", required=True, title="layouts")

    def layout(name: str, summary: str, text: str) -> argparse.ArgumentParser:
        formatter = argparse.RawDescriptionHelpFormatter
        own = layouts.add_parser(name, help=summary, description=text, formatter_class=formatter)
        own.add_argument("source", type=Path, metavar="SOURCE", help="the folder with the data; it is only read")
        _add_common(own, name)
        return own

    isic = layout("isic", "ISIC 2017 and 2018 skin lesions", _ISIC)
    isic.add_argument(
        "--val-as",
        choices=("fold0", "test"),
        default="fold0",
        help="validation images become the validation set of fold 0 (default), or imagesTs/labelsTs",
    )
    layout("synapse", "Synapse multi-organ CT in TransUNet's layout (npz and h5)", _SYNAPSE)
    umamba = layout("umamba", "U-Mamba's published datasets 702, 703, 704", _UMAMBA)
    umamba.add_argument(
        "--published", type=int, choices=(702, 703, 704), help="which one (default: by the folder's name)"
    )
    umamba.add_argument("--allow-incomplete", action="store_true", help="go on although cases are missing")
    umamba.add_argument("--link", action="store_true", help="make hard links instead of copies (on one disk only)")
    images = layout("images", "any folder of 2D images and masks", _IMAGES)
    _add_matching(images)
    images.add_argument("--channels", choices=("rgb", "grey"), help="make all images three-channel or one-channel")
    images.add_argument(
        "--exif",
        choices=("apply", "ignore"),
        help="images that a camera marked as turned: turn them (the masks were drawn on what a viewer "
        "shows), or take them as stored; asked for only where there are such marks",
    )
    images.add_argument(
        "--threshold",
        type=int,
        metavar="VALUE",
        help="two labels: mask values above VALUE are foreground; for JPEG masks, say 127",
    )
    volumes = layout("volumes", "DICOM series, NIfTI, NRRD, MetaImage with segmentations", _VOLUMES)
    _add_matching(volumes)
    volumes.add_argument(
        "--modality",
        metavar="NAME",
        help="the channel's name, for example MR; CT makes nnU-Net normalise by Hounsfield units",
    )
    volumes.add_argument(
        "--trust-image-geometry",
        action="store_true",
        help="masks of the image's size but at another place in space: take the image's place",
    )


def _add_common(parser: argparse.ArgumentParser, layout: str) -> None:
    of_its_own = layout == "umamba"
    target = parser.add_argument_group("the dataset")
    target.add_argument(
        "-d",
        "--dataset-id",
        type=int,
        metavar="ID",
        required=not of_its_own,
        help="nnU-Net's number of the dataset, 1 to 999" + (" (default: the published one)" if of_its_own else ""),
    )
    target.add_argument("-n", "--name", help="its name, letters, digits, - and _ (default: made of SOURCE's)")
    target.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="where the dataset's folder goes (default: $nnUNet_raw)"
    )
    target.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the dataset if it is there; the old one stays until the new one is complete and checked",
    )
    target.add_argument("--dry-run", action="store_true", help="read and check everything, report, write nothing")
    target.add_argument("--skip-bad", action="store_true", help="leave out cases that cannot be used, and list them")
    if layout != "synapse" and not of_its_own:
        target.add_argument(
            "--install-splits",
            action="store_true",
            help="also put splits_final.json where nnU-Net looks for it, into $nnUNet_preprocessed",
        )
    target.add_argument(
        "-np",
        "--workers",
        type=int,
        default=8,
        metavar="N",
        help="at most so many cases at a time (default: %(default)s, and never more than CPU cores)",
    )


def _add_matching(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("which files (folders and patterns are relative to SOURCE; quote patterns)")
    channels = " (several channels: once each, as NAME=PATTERN)" if parser.prog.endswith("volumes") else ""
    files.add_argument("--images", action="append", default=[], metavar="FOLDER|PATTERN", help="the images" + channels)
    files.add_argument("--masks", default="", metavar="FOLDER|PATTERN", help="their masks")
    files.add_argument(
        "--test-images", action="append", default=[], metavar="FOLDER|PATTERN", help="images to hold out"
    )
    files.add_argument("--test-masks", default="", metavar="FOLDER|PATTERN", help="their masks, if there are any")
    files.add_argument(
        "--image-key",
        metavar="REGEX",
        help="what in an image's path names the case: the expression's groups, or all it matches "
        "(default: the path without ending)",
    )
    files.add_argument("--mask-key", metavar="REGEX", help="the same for masks (default: as --image-key)")
    labels = parser.add_argument_group("labels")
    labels.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what a mask value stands for, once per label: NAME=255, NAME='#ff0000' or NAME=255,0,0; "
        "the name background becomes 0, ignore is left out of training",
    )
    labels.add_argument(
        "--others-are-background",
        action="store_true",
        help="mask values without a --label become background instead of being an error",
    )
    splits = parser.add_argument_group("splits")
    splits.add_argument(
        "--group-pattern",
        metavar="REGEX",
        help="what in an image's path names the patient, for example '(P\\d+)_': one patient's images "
        "never come apart, neither in folds nor in the test set; five folds are written",
    )
    splits.add_argument(
        "--test-fraction",
        type=float,
        default=0.0,
        metavar="F",
        help="hold out this share of the groups (or cases) as imagesTs and labelsTs, for example 0.2",
    )
    splits.add_argument(
        "--folds", type=int, default=0, metavar="K", help="write so many folds (nnU-Net draws 5 itself)"
    )
    splits.add_argument("--seed", type=int, default=12345, help="of the random splits (default: %(default)s)")
    splits.add_argument(
        "--val-as",
        choices=("fold0", "test"),
        default="fold0",
        help="a validation folder of SOURCE becomes fold 0's validation set (default), or the test set",
    )
