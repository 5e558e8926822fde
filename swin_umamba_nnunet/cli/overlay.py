"""`swin-umamba overlay`: pictures of images with ground truth and prediction, to see what the numbers mean."""

import argparse
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swin_umamba_nnunet._text import UserError, did_you_mean, printable
from swin_umamba_nnunet.cli import _dataset
from swin_umamba_nnunet.pictures import PLANES, SLICES

if TYPE_CHECKING:
    from swin_umamba_nnunet.evaluation import CasePair, LabelSet
    from swin_umamba_nnunet.pictures.looks import Look

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    images = "images, as nnU-Net has them: CASE_0000.ENDING"
    add("-i", "--images", type=Path, required=True, metavar="DIR", help=images)
    _dataset.add_arguments(parser)
    output = (
        "where the pictures go; those of an earlier run are replaced (default: beside the prediction folder, "
        "PREDICTIONS_overlay)"
    )
    add("-o", "--output", type=Path, metavar="DIR", help=output)
    add("--cases", nargs="+", metavar="CASE", help="only these cases")
    sheet = f"all cases on one contact sheet, {_ROWS_PER_SHEET} rows a page, instead of a picture each"
    add("--sheet", action="store_true", help=sheet)
    slices = "which slices of a volume to show (default: all three)"
    add("--slices", nargs="+", choices=SLICES, default=SLICES, help=slices)
    add("--plane", choices=PLANES, help="plane of the slices (default: the one they were taken in)")
    channel = "which channel of a multi-channel scan to show, from 0 (default: 0)"
    add("--channel", type=int, default=0, metavar="N", help=channel)


def run(args: argparse.Namespace) -> None:
    """Check the folders, then draw.

    Raises:
        EvaluationError: files or labels that do not fit together; the pictures drawn before stay.
        UserError: a folder or an option that cannot serve.
    """
    from swin_umamba_nnunet.evaluation import find_images
    from swin_umamba_nnunet.pictures.looks import read_look

    if args.channel < 0:
        raise UserError(f"--channel {args.channel}: expected 0 or more")
    try:
        pairs = _pairs(args)
        images = find_images(args.images, [pair.name for pair in pairs])
        labels = _labels(args, pairs)
        # beside the predictions, not among them: that folder is nnU-Net's
        predictions = Path(os.path.abspath(args.predictions))
        folder = args.output or predictions.with_name(f"{predictions.name}_overlay")
        if folder.resolve() in [given.resolve() for given in (args.images, args.ground_truth, predictions)]:
            raise UserError(f"{folder} has the files to be drawn, which pictures would replace; choose another with -o")
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise UserError(f"the folder {folder} cannot be written; choose another one with -o")
        looks = (  # read when it is asked for: one case in memory at a time
            read_look(pair, images[pair.name], labels, channel=args.channel, wanted=args.slices, plane=args.plane)
            for pair in pairs
        )
        title = f"{predictions.name} against {args.ground_truth.absolute().name}"
        _draw(looks, labels, folder, title, len(pairs), args.sheet)
    except OSError as error:
        raise UserError(
            f"{error.filename or 'a file'} cannot be read or written ({error.strerror or error}); put that right, or "
            "name another folder for the pictures with -o"
        ) from error


def _pairs(args: argparse.Namespace) -> "list[CasePair]":
    from swin_umamba_nnunet.evaluation import pair_cases

    missing = args.allow_missing or args.cases is not None
    pairs = pair_cases(args.ground_truth, args.predictions, file_ending=args.file_ending, allow_missing=missing).cases
    if args.cases is None:
        return pairs
    by_name = {pair.name: pair for pair in pairs}
    for name in args.cases:
        if name not in by_name:
            hint = did_you_mean(name, by_name) or f"the first is {pairs[0].name}"
            raise UserError(
                f"--cases: {args.ground_truth} and {args.predictions} have no case {name} in common; {hint}"
            )
    return [by_name[name] for name in dict.fromkeys(args.cases)]


def _labels(args: argparse.Namespace, pairs: "Sequence[CasePair]") -> "LabelSet":
    """The classes: as asked for, else from a dataset.json in its usual places, else whatever the files hold."""
    from swin_umamba_nnunet.evaluation import Plain, labels_in

    asked = Plain(args.labels, _dataset.dataset_json(args), distances=False)
    labels = asked.prepare(args.ground_truth, args.predictions).classes
    if labels is not None:
        return labels
    print("There is no dataset.json (see --dataset and --labels): every label found in the files counts as a class.")
    labels = labels_in(pairs)
    if not labels.classes:
        raise UserError("neither ground truth nor predictions hold a label above 0; name the classes with --labels")
    return labels


def _draw(looks: "Iterator[Look]", labels: "LabelSet", folder: Path, title: str, count: int, sheet: bool) -> None:
    from tqdm import tqdm

    from swin_umamba_nnunet.pictures.overlay import draw_case, draw_sheet

    scores: list[tuple[float, str]] = []
    written: list[Path] = []
    page: list[Look] = []
    sheets = (folder / f"sheet_{number:02d}.png" for number in itertools.count(1))

    def finish_page() -> None:
        written.append(next(sheets))
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
        for old in itertools.takewhile(Path.is_file, sheets):  # an earlier run may have had more pages
            old.unlink()
    pictures = written[0] if len(written) == 1 else f"{len(written)} pictures in {folder}"
    print(printable(f"Wrote {pictures}"))
    defined = sorted(score for score in scores if score[0] == score[0])
    if defined:
        lowest = printable(", ".join(f"{name} {value:.3f}" for value, name in defined[:3]))
        print(f"Lowest mean Dice (whole case, mean over the classes in either mask): {lowest}")
