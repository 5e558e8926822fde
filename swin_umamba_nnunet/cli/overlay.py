"""`swin-umamba overlay`: pictures of images with ground truth and prediction, to see what the numbers mean."""

import argparse
import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swin_umamba_nnunet._text import printable
from swin_umamba_nnunet.cli._dataset import dataset_json_of
from swin_umamba_nnunet.cli.errors import CliError

if TYPE_CHECKING:
    from swin_umamba_nnunet.evaluation.cases import CasePair
    from swin_umamba_nnunet.evaluation.labels import LabelSet
    from swin_umamba_nnunet.pictures.overlay import Look

DESCRIPTION = """\
Draw image, ground truth, prediction and their differences side by side, one PNG per case or one sheet for many, with
the Dice of each class.  Of a volume the best, the median and the worst slice are shown (by the mean Dice of the
classes in it), the patient's right on the left, pixels in their true proportions.  Works on any folder that nnU-Net
predicted.

Grey images are shown from the 2nd to the 98th percentile of the whole case.  Classes differ in colour, line style and
number, so greyscale prints stay readable.

Example:   swin-umamba overlay -i imagesTs -gt labelsTs -pred predictions --sheet
"""

_ROWS_PER_SHEET = 24
_SLICES = ("best", "median", "worst")
_PLANES = ("axial", "coronal", "sagittal")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("-i", "--images", type=Path, required=True, metavar="DIR",
                        help="images, as nnU-Net has them: CASE_0000.ENDING")  # fmt: skip
    parser.add_argument("-gt", "--ground-truth", type=Path, required=True, metavar="DIR", help="reference label files")
    parser.add_argument("-pred", "--predictions", type=Path, required=True, metavar="DIR", help="predicted label files")
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--dataset", metavar="ID",
                       help="take the class names from this dataset of nnUNet_raw or nnUNet_preprocessed; default: "
                            "from the dataset.json that nnU-Net leaves beside its predictions, or beside the "
                            "ground-truth folder, else every value in the files is a class")  # fmt: skip
    names.add_argument("--dataset-json", type=Path, metavar="FILE", help="take the class names from this file")
    names.add_argument("--labels", nargs="+", metavar="LABEL", help="classes: 1, liver=1, tumour=1,2 (a region)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR",
                        help="where the pictures go; those of an earlier run are replaced (default: beside the "
                             "prediction folder, PREDICTIONS_overlay)")  # fmt: skip
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="only these cases")
    parser.add_argument("--sheet", action="store_true",
                        help=f"all cases on one contact sheet, {_ROWS_PER_SHEET} rows a page, instead of a picture "
                             "each")  # fmt: skip
    parser.add_argument("--slices", nargs="+", choices=_SLICES, default=_SLICES,
                        help="which slices of a volume to show (default: all three)")  # fmt: skip
    parser.add_argument("--plane", choices=_PLANES, help="plane of the slices (default: the one they were taken in)")
    parser.add_argument("--channel", type=int, default=0, metavar="N",
                        help="which channel of a multi-channel scan to show, from 0 (default: 0)")  # fmt: skip
    parser.add_argument("--file-ending", metavar="ENDING", help="of the label files, where folders mix several")
    parser.add_argument("--allow-missing", action="store_true", help="draw the cases that both folders have")


def run(args: argparse.Namespace) -> int:
    """Check the folders, then draw.

    Returns:
        0.

    Raises:
        CliError: folders, files or labels that do not fit together; the pictures drawn before stay.
    """
    from swin_umamba_nnunet.evaluation.errors import EvaluationError
    from swin_umamba_nnunet.evaluation.images import find_images

    if args.channel < 0:
        raise CliError(f"--channel {args.channel}: expected 0 or more")
    try:
        pairs = _pairs(args)
        images = find_images(args.images, [pair.name for pair in pairs])
        labels = _labels(args, pairs)
        # beside the predictions, not among them: that folder is nnU-Net's
        predictions = Path(os.path.abspath(args.predictions))
        folder = _output_folder(args.output or predictions.with_name(f"{predictions.name}_overlay"))
        looks = _looks(args, pairs, images, labels)
        title = f"{args.predictions.absolute().name} against {args.ground_truth.absolute().name}"
        _draw(looks, labels, folder, title, len(pairs), args.sheet)
    except EvaluationError as error:
        raise CliError(str(error)) from error
    except OSError as error:
        raise CliError(
            f"{error.filename or 'a file'} cannot be read or written ({error.strerror or error}); put that right, or "
            "name another folder for the pictures with -o"
        ) from error
    return 0


def _pairs(args: argparse.Namespace) -> "list[CasePair]":
    from swin_umamba_nnunet.evaluation.cases import pair_cases

    pairs = pair_cases(
        args.ground_truth, args.predictions, file_ending=args.file_ending,
        allow_missing=args.allow_missing or args.cases is not None,
    )  # fmt: skip
    if args.cases is None:
        return pairs
    by_name = {pair.name: pair for pair in pairs}
    for name in args.cases:
        if name not in by_name:
            close = difflib.get_close_matches(name, by_name, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the first is {pairs[0].name}"
            raise CliError(f"--cases: {args.ground_truth} and {args.predictions} have no case {name} in common; {hint}")
    return [by_name[name] for name in dict.fromkeys(args.cases)]


def _labels(args: argparse.Namespace, pairs: "Sequence[CasePair]") -> "LabelSet":
    """The classes: as asked for, else from a dataset.json in its usual places, else whatever the files hold."""
    import numpy as np

    from swin_umamba_nnunet.evaluation.build import find_dataset_json
    from swin_umamba_nnunet.evaluation.cases import read_pair
    from swin_umamba_nnunet.evaluation.labels import labels_as_found, parse_labels, read_dataset_json

    if args.labels:
        return parse_labels(args.labels)
    if args.dataset_json or args.dataset:
        return read_dataset_json(args.dataset_json or dataset_json_of(args.dataset))
    if (found := find_dataset_json(args.ground_truth.absolute(), args.predictions.absolute())) is not None:
        return read_dataset_json(found)
    print("There is no dataset.json (see --dataset and --labels): every label found in the files counts as a class.")
    values = {int(value) for pair in pairs for one in read_pair(pair) for value in np.unique(one.array)}
    labels = labels_as_found(values)
    if not labels.classes:
        raise CliError("neither ground truth nor predictions hold a label above 0; name the classes with --labels")
    return labels


def _output_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise CliError(f"the folder {folder} cannot be written; choose another one with -o")
    return folder


def _looks(
    args: argparse.Namespace, pairs: "Sequence[CasePair]", images: dict[str, list[Path]], labels: "LabelSet"
) -> "Iterator[Look]":
    """What there is to see of each case, read when it is asked for: one case in memory at a time."""
    from swin_umamba_nnunet.evaluation.cases import read_pair
    from swin_umamba_nnunet.evaluation.images import read_image
    from swin_umamba_nnunet.pictures.overlay import Case, look_at

    for pair in pairs:
        segmentations = read_pair(pair, labels.reader)
        truth, prediction = (one.array if one.array.ndim == 3 else one.array[None] for one in segmentations)
        for one in segmentations:
            _check_values(one.array, one.path, labels, truth=one is segmentations[0])
        image = read_image(images[pair.name], args.channel, labels.reader)
        if image.array.shape[:3] != truth.shape:
            raise CliError(
                f"case {pair.name}: the image {images[pair.name][0]} has the shape {image.array.shape[:3]} and the "
                f"labels {truth.shape}; expected the same (axes z, y, x)"
            )
        case = Case(pair.name, image.array, truth, prediction, image.spacing_mm, image.direction)
        yield look_at(case, labels.classes, ignore=labels.ignore, wanted=args.slices, plane=args.plane)


def _check_values(array, path: Path, labels: "LabelSet", truth: bool) -> None:
    import numpy as np

    if labels.known is None:
        return
    known = labels.known | ({labels.ignore} if truth and labels.ignore is not None else set())
    unknown = [int(value) for value in np.unique(array) if int(value) not in known]
    if unknown:
        raise CliError(
            f"{path} holds the label {unknown[0]}, which {labels.source} does not name (it names "
            f"{', '.join(map(str, sorted(known)))}); is it of another dataset?"
        )


def _draw(looks: "Iterator[Look]", labels: "LabelSet", folder: Path, title: str, count: int, sheet: bool) -> None:
    from tqdm import tqdm

    from swin_umamba_nnunet.pictures.overlay import draw_case, draw_sheet

    scores: list[tuple[float, str]] = []
    written: list[Path] = []
    page: list[Look] = []

    def finish_page() -> None:
        written.append(folder / f"sheet_{len(written) + 1:02d}.png")
        draw_sheet(page, labels.classes, written[-1], f"{title}, page {len(written)}")
        page.clear()

    for look in tqdm(looks, total=count, unit="case", disable=None):
        scores.append((look.mean_dice, look.name))
        if not sheet:
            written.append(folder / f"{look.name}.png")
            draw_case(look, labels.classes, written[-1])
            continue
        if page and sum(len(one.views) for one in (*page, look)) > _ROWS_PER_SHEET:
            finish_page()
        page.append(look)
    if page:
        finish_page()
    _report(written, folder, scores)


def _report(written: Sequence[Path], folder: Path, scores: list[tuple[float, str]]) -> None:
    pictures = written[0] if len(written) == 1 else f"{len(written)} pictures in {folder}"
    print(printable(f"Wrote {pictures}"))
    defined = sorted(score for score in scores if score[0] == score[0])
    if defined:
        lowest = printable(", ".join(f"{name} {value:.3f}" for value, name in defined[:3]))
        print(f"Lowest mean Dice (whole case, mean over the classes in either mask): {lowest}")
