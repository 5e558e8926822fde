"""Label files of two folders: paired by name, read by nnU-Net's own readers, and checked before anything is computed.

A case is a label file in the ground-truth folder and its namesake in the prediction folder.  The files are read as
nnU-Net reads them (array axes z, y, x and spacing in the same order), then freed of nnU-Net's conventions: a 2D image
is a (H, W) array with its in-plane spacing, and where the file has no physical spacing (PNG, BMP, TIFF without a
spacing file) the unit is the pixel, never the millimetre.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swin_umamba_nnunet.evaluation.errors import EvaluationError
from swin_umamba_nnunet.evaluation.readers import FILE_ENDINGS, declared_shape, read_array

_PIXEL_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
_OTHER_IMAGES = (".jpg", ".jpeg", ".gif", ".webp", ".npy", ".npz", ".dcm", ".h5", ".mhd")
_NAMES_SHOWN = 10
_SPACING_TOLERANCE = 1e-3  # relative; headers store float32, and some writers round to a few digits


@dataclass(frozen=True)
class CasePair:
    """One case: its name (file name without ending) and its two label files."""

    name: str
    ground_truth: Path
    prediction: Path


@dataclass(frozen=True)
class Segmentation:
    """A label map as the file has it.

    Attributes:
        array: (H, W) or (D, H, W), unsigned integers; axis order y, x or z, y, x.
        spacing: distance between neighbouring elements along each axis of `array`, in `unit`.
        unit: "mm", or "px" (2D) and "voxel" (3D) where the file format has no physical spacing.
        direction: direction cosines of the header, row by row; empty where the reader gives none.
        path: where it was read from.
    """

    array: np.ndarray
    spacing: tuple[float, ...]
    unit: str
    direction: tuple[float, ...]
    path: Path


def pair_cases(
    ground_truth: Path | str,
    predictions: Path | str,
    *,
    file_ending: str | None = None,
    ground_truth_suffix: str = "",
    allow_missing: bool = False,
) -> list[CasePair]:
    """Pair the label files of two folders by name.

    The ending is found per folder, so ground truth and predictions may have different ones.

    Args:
        ground_truth: folder with the reference label files.
        predictions: folder with the predicted label files.
        file_ending: only files with this ending, in both folders; needed where a folder mixes endings.
        ground_truth_suffix: cut from the names of ground-truth files that end in it, e.g. "_label".
        allow_missing: evaluate the cases that both folders have; otherwise every name without partner is an error.

    Returns:
        The cases, sorted by name.

    Raises:
        EvaluationError: a folder does not exist, has no label files or files of several endings, a name occurs
            twice, or cases have no partner (all of them are counted, the first ten named).
    """
    truth = find_label_files(ground_truth, "ground truth", file_ending, ground_truth_suffix)
    predicted = find_label_files(predictions, "prediction", file_ending)
    missing, extra = sorted(truth.keys() - predicted.keys()), sorted(predicted.keys() - truth.keys())
    common = sorted(truth.keys() & predicted.keys())
    if not common:
        raise EvaluationError(
            f"no case of {ground_truth} has a prediction in {predictions}: files are paired by name without ending, "
            f"and one has {_listed(sorted(truth))}, the other {_listed(sorted(predicted))}"
        )
    if (missing or extra) and not allow_missing:
        parts = []
        if missing:
            parts.append(f"{_count(missing)} without a prediction in {predictions}: {_listed(missing)}")
        if extra:
            parts.append(f"{_count(extra)} without ground truth in {ground_truth}: {_listed(extra)}")
        raise EvaluationError(
            "; ".join(parts) + ". Add the files, or evaluate only the cases that both folders have with --allow-missing"
        )
    return [CasePair(name, truth[name], predicted[name]) for name in common]


def unpaired_names(
    ground_truth: Path | str, predictions: Path | str, *, file_ending: str | None = None, ground_truth_suffix: str = ""
) -> tuple[list[str], list[str]]:
    """Names only the ground truth has, and names only the predictions have."""
    truth = find_label_files(ground_truth, "ground truth", file_ending, ground_truth_suffix)
    predicted = find_label_files(predictions, "prediction", file_ending)
    return sorted(truth.keys() - predicted.keys()), sorted(predicted.keys() - truth.keys())


def find_label_files(
    folder: Path | str, role: str, file_ending: str | None = None, suffix: str = ""
) -> dict[str, Path]:
    """Case name -> file, for the label files of a folder (subfolders and hidden files are not looked at).

    Args:
        folder: where to look.
        role: what the folder is, for error messages.
        file_ending: only these files; all endings that nnU-Net reads if None.
        suffix: cut from the end of names that have it.

    Raises:
        EvaluationError: see `pair_cases`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise EvaluationError(f"the {role} folder {folder} does not exist; expected a folder of label files")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    wanted = (file_ending,) if file_ending else FILE_ENDINGS
    by_ending: dict[str, list[Path]] = {}
    for path in files:
        ending = next((ending for ending in wanted if path.name.lower().endswith(ending.lower())), None)
        if ending is not None:
            by_ending.setdefault(ending, []).append(path)
    if not by_ending:
        others = sorted({path.suffix.lower() for path in files} & set(_OTHER_IMAGES))
        has = f" (it has {', '.join(others)} files)" if others else " (it is empty)" if not files else ""
        raise EvaluationError(
            f"the {role} folder {folder} has no label files{has}; expected files ending in {', '.join(wanted)}, "
            "which are what nnU-Net reads"
        )
    if len(by_ending) > 1:
        found = ", ".join(f"{len(paths)} {ending}" for ending, paths in by_ending.items())
        raise EvaluationError(f"the {role} folder {folder} mixes files: {found}; say which with --file-ending")
    ((ending, paths),) = by_ending.items()
    named: dict[str, Path] = {}
    for path in paths:
        name = path.name[: -len(ending)]
        name = name.removesuffix(suffix) if suffix and name != suffix else name
        if name in named:
            raise EvaluationError(f"{path} and {named[name]} are both case {name}; remove or rename one of them")
        named[name] = path
    return named


def read_segmentation(path: Path | str, reader: str | None = None) -> Segmentation:
    """Read one label file with the reader nnU-Net takes for its ending.

    Args:
        path: the file.
        reader: name of one of nnU-Net's readers (dataset.json's `overwrite_image_reader_writer`) to use instead.

    Raises:
        EvaluationError: unreadable, several channels (RGB), or values that are no labels (fractions, negative,
            not finite); the message names the file.
    """
    path = Path(path)
    array, spacing, direction, has_spacing = read_array(path, reader)
    if array.ndim != 4:
        raise EvaluationError(f"{path} has the shape {array.shape}; expected an image or a volume of labels")
    if array.shape[0] != 1:
        kind = "RGB or RGBA" if path.name.lower().endswith(_PIXEL_ENDINGS) else "4D"
        raise EvaluationError(
            f"{path} has {array.shape[0]} channels ({kind}); expected one channel of label numbers 0, 1, 2, ... "
            "(a palette PNG counts as RGB: save the indices instead of the colours)"
        )
    labels = _as_labels(array[0], path)
    if labels.shape[0] == 1:  # nnU-Net's way to hold a 2D image; its first spacing (999, or 999 x) means nothing
        labels, spacing = labels[0], spacing[1:]
    if len(spacing) != labels.ndim:
        raise EvaluationError(f"{path} has the shape {array.shape}; expected an image or a volume of one channel")
    unit = "mm" if has_spacing else "px" if labels.ndim == 2 else "voxel"
    return Segmentation(labels, tuple(float(value) for value in spacing), unit, direction, path)


def read_pair(pair: CasePair, reader: str | None = None) -> tuple[Segmentation, Segmentation]:
    """Ground truth and prediction of a case.

    Raises:
        EvaluationError: one cannot be read, or their shapes or spacings differ.
    """
    declared = declared_shape(pair.ground_truth), declared_shape(pair.prediction)
    # numbers of voxels, because a reader may turn the axes; before gigabytes are read of a file that cannot fit
    if declared[0] and declared[1] and math.prod(declared[0]) != math.prod(declared[1]):
        raise _differing(pair, declared[0], declared[1])
    truth, prediction = read_segmentation(pair.ground_truth, reader), read_segmentation(pair.prediction, reader)
    if truth.array.shape != prediction.array.shape:
        raise _differing(pair, truth.array.shape, prediction.array.shape)
    if truth.unit == prediction.unit == "mm" and not np.allclose(
        truth.spacing, prediction.spacing, rtol=_SPACING_TOLERANCE, atol=0
    ):
        raise EvaluationError(
            f"case {pair.name}: the ground truth {pair.ground_truth} has the spacing {_millimetres(truth.spacing)} and "
            f"the prediction {pair.prediction} {_millimetres(prediction.spacing)}; expected the same (axes z, y, x)"
        )
    return truth, prediction


def _differing(pair: CasePair, truth: tuple[int, ...], prediction: tuple[int, ...]) -> EvaluationError:
    return EvaluationError(
        f"case {pair.name}: the ground truth {pair.ground_truth} has the shape {truth} and the prediction "
        f"{pair.prediction} {prediction}; expected the same (axes z, y, x)"
    )


def _as_labels(array: np.ndarray, path: Path) -> np.ndarray:
    """The array in the smallest unsigned type that holds it."""
    if array.size == 0:
        raise EvaluationError(f"{path} has the shape {array.shape} and no pixels")
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise EvaluationError(f"{path} has values that are not finite; expected whole label numbers 0, 1, 2, ...")
    if low < 0:
        raise EvaluationError(f"{path} has the negative value {low:g}; expected whole label numbers 0, 1, 2, ...")
    labels = array.astype(np.uint8 if high < 256 else np.uint16 if high < 65536 else np.uint32)
    fractions = labels != array
    if fractions.any():
        raise EvaluationError(
            f"{path} has fractions such as {array[fractions][0]:g}; expected whole label numbers 0, 1, 2, ... "
            "(probabilities have to be thresholded first)"
        )
    return labels


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} case{'s' if len(names) > 1 else ''}"


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _millimetres(spacing: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in spacing) + " mm"
