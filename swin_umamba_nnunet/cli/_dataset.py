"""What `evaluate` and `overlay` ask alike: two folders of label files, and which classes are in them."""

import argparse
import os
from pathlib import Path

from swin_umamba_nnunet._text import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folders, and the classes as options of the plain protocol."""
    from swin_umamba_nnunet.evaluation.protocols import Plain, flag_of

    for short, long, what in (("-gt", "--ground-truth", "reference"), ("-pred", "--predictions", "predicted")):
        parser.add_argument(short, long, type=Path, required=True, metavar="DIR", help=f"{what} label files")
    parser.add_argument("--file-ending", metavar="ENDING", help="only these label files, where a folder mixes several")
    parser.add_argument("--allow-missing", action="store_true", help="only the cases that both folders have")
    classes = parser.add_argument_group(
        "classes",
        "by default those of the dataset.json beside the predictions or the ground truth, else every value in "
        "the files",
    ).add_mutually_exclusive_group()
    classes.add_argument("--dataset", metavar="ID", help="number or name of a dataset in nnUNet_raw")
    for name in ("labels", "dataset_json"):
        option = Plain.options()[name]
        classes.add_argument(flag_of(option), **option.metadata["argument"])


def dataset_json(args: argparse.Namespace) -> Path | str | None:
    """The dataset.json that was named, or that of a dataset in nnUNet_raw or nnUNet_preprocessed; None: neither.

    Raises:
        UserError: the dataset is in neither folder, or the number is that of several datasets.
    """
    if (dataset := args.dataset) is None:
        return args.dataset_json
    pattern = f"Dataset{int(dataset):03d}_*" if dataset.isdecimal() else dataset
    folders = [folder for name in ("nnUNet_raw", "nnUNet_preprocessed") if (folder := os.environ.get(name))]
    for folder in folders:
        found = sorted(Path(folder).glob(f"{pattern}/dataset.json"))
        if len(found) > 1:
            names = ", ".join(path.parent.name for path in found)
            raise UserError(f"--dataset {dataset} is not unique: {names}; give one of these names")
        if found:
            return found[0]
    where = f"no {pattern}/dataset.json in {' or '.join(folders)}" if folders else "nnUNet_raw is not set"
    raise UserError(
        f"--dataset {dataset}: {where}; set nnUNet_raw to where it is, or name the file with --dataset-json"
    )
