"""From a case's arrays to the slices that are drawn: which, which way up, in which grey values, and what they score.

Arrays are as nnU-Net's readers give them, in (z, y, x) order with spacings in mm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from swin_umamba_nnunet.evaluation import CasePair, EvaluationError, Image, LabelSet, read_image, read_pair
from swin_umamba_nnunet.evaluation.labels import mask_of, require_known, values_in, without_ignored
from swin_umamba_nnunet.evaluation.statistics import mean_of_finite, ratio
from swin_umamba_nnunet.pictures import PLANES, SLICES

WINDOW_PERCENT = (2.0, 98.0)
_THICK = 1.25  # times the axial spacing: from there on another axis counts as the one the slices were taken along
_EDGES = (("R", "A"), ("R", "S"), ("A", "S"))  # at the left and at the top of each plane, as radiologists look at it


@dataclass(frozen=True)
class View:
    """One slice, the way up it is shown.

    Attributes:
        caption: which slice of the volume and its score, one item per line; empty for a 2D image.
        image: (H, W) or (H, W, 3) in [0, 1].
        truth, prediction: (H, W) labels, 0 where nothing is scored.
        ignored: (H, W) bool, where nothing is scored.
        aspect: height of a pixel over its width.
        edges: the patient's side at the left and at the top ("R", "A"), where known.
    """

    caption: tuple[str, ...]
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    ignored: np.ndarray
    aspect: float
    edges: tuple[str, str] | None = None


@dataclass(frozen=True)
class Look:
    """What there is to see of a case: its slices, and Dice of the whole case by class.

    It is NaN where a class is in neither mask, and there is none without a ground truth.
    """

    name: str
    views: tuple[View, ...]
    dice: Mapping[str, float]

    @property
    def mean_dice(self) -> float:
        """Mean over the classes that have a Dice; NaN where none has."""
        return mean_of_finite(self.dice.values())


def read_case(
    pair: CasePair, images: Sequence[Path], labels: LabelSet, channel: int = 0, image: Image | None = None
) -> tuple[Image, np.ndarray, np.ndarray]:
    """Image, ground truth (D, H, W) and prediction (D, H, W) of a case; see `read_look`.

    Args:
        pair, images, labels, channel: as there.
        image: what they hold, where it has been read already.
    """
    truth, prediction = (one.array for one in read_pair(pair, labels.reader))
    require_known(pair, labels, values_in(truth), values_in(prediction))
    image = image or read_image(images, channel, labels.reader)
    truth, prediction = (one if one.ndim == 3 else one[None] for one in (truth, prediction))
    if image.array.shape[:3] != truth.shape:
        raise EvaluationError(
            f"case {pair.name}: the image {images[0]} has the shape {image.array.shape[:3]} and the labels "
            f"{truth.shape}; expected the same (axes z, y, x)"
        )
    return image, truth, prediction


def read_look(
    pair: CasePair,
    images: Sequence[Path],
    labels: LabelSet,
    *,
    channel: int = 0,
    wanted: Sequence[str] = SLICES,
    plane: str | None = None,
) -> Look:
    """What there is to see of the files of a case.

    Args:
        pair: its label files.
        images: its image files, one per channel or one for all, see `evaluation.find_images`.
        labels: the classes.
        channel: which is shown, from 0.
        wanted, plane: see `look_at`.

    Raises:
        EvaluationError: a file cannot be read, the files do not fit together, or labels occur that nobody named.
    """
    return look_at(pair.name, *read_case(pair, images, labels, channel), labels, wanted=wanted, plane=plane)


def look_at(
    name: str,
    image: Image,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    labels: LabelSet,
    *,
    wanted: Sequence[str] = SLICES,
    plane: str | None = None,
) -> Look:
    """Score a case and pick the slices to show.

    Args:
        name: nnU-Net's case identifier.
        image: (D, H, W) grey values or (D, H, W, 3) colours; D = 1 for a 2D image.
        truth, prediction: (D, H, W) labels; without a truth nothing is scored, and the slices of a volume are the one
            with most voxels of the classes, and the median.
        labels: the classes of the foreground.
        wanted: names out of `SLICES`; a 2D image is shown whatever they are.
        plane: one of `PLANES`; None for the one the slices were taken in.
    """
    scored = truth is not None
    truth = prediction if truth is None else truth
    words = {} if scored else {"best": "fullest", "best and median": "fullest"}
    order, backwards = axes_in_lps(image.direction)
    spacing = [image.spacing_mm[axis] for axis in order]
    flat, anatomical = len(truth) == 1, image.direction is not None
    if flat:
        across = order.index(0)
    else:
        across = slice_axis(spacing) if plane is None else PLANES.index(plane)
    axis = order[across]
    ignored = np.zeros(truth.shape, bool) if labels.ignore is None else truth == labels.ignore
    truth, prediction, _ = without_ignored(truth, prediction, labels.ignore)
    overlaps, sizes = slice_overlaps(np.moveaxis(truth, axis, 0), np.moveaxis(prediction, axis, 0), labels)
    scores = np.array([mean_of_finite(row) for row in ratio(2 * overlaps, sizes).T])
    window = window_of(image.array)
    rows, columns = (spacing[axis] for axis in range(3) if axis != across)
    views = []
    for word, index in choose_slices(scores, sizes.sum(axis=0), wanted if scored else SLICES[:2]).items():
        picture, true, predicted, unscored = (
            _upright(np.take(array, index, axis=axis), order, backwards, across, anatomical)
            for array in (image.array, truth, prediction, ignored)
        )
        where = f"{PLANES[across] if anatomical else ''} slice {index + 1} of {len(scores)}".strip()
        some, none = (f"Dice of the slice {scores[index]:.3f}", "in either mask") if scored else ("", "predicted")
        score = f"nothing {none}" if np.isnan(scores[index]) else some
        caption = () if flat else (f"{words.get(word, word)} slice", where, score)
        edges = _EDGES[across] if anatomical and not flat else None
        views.append(View(caption, displayable(picture, window), true, predicted, unscored, rows / columns, edges))
    dice = ratio(2 * overlaps.sum(axis=1), sizes.sum(axis=1)).tolist() if scored else ()
    return Look(name, tuple(views), dict(zip(labels.classes, dice)))


def _upright(
    picture: np.ndarray, order: Sequence[int], backwards: Sequence[bool], across: int, anatomical: bool
) -> np.ndarray:
    """A slice cut from the file's array, turned the way radiologists look at its plane."""
    rows, columns = (axis for axis in range(3) if axis != across)
    if order[rows] > order[columns]:
        picture = picture.swapaxes(0, 1)
    # Array axes run to S, P and L; pictures show the front, or else the head, at the top.
    head_up = anatomical and rows == 0
    flips = tuple(axis for axis, flip in ((0, backwards[rows] != head_up), (1, backwards[columns])) if flip)
    return np.flip(picture, flips)


def axes_in_lps(direction: np.ndarray | None) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """For the patient's axes S (to the head), P (to the back) and L: which array axis runs along it, and if backwards.

    Args:
        direction: (3, 3) direction cosines of the x, y, z axes (columns) in LPS coordinates, SimpleITK's way; None
            leaves the array as it is.

    An oblique axis counts as the nearest main axis; nothing is interpolated.
    """
    if direction is None:
        return (0, 1, 2), (False, False, False)
    name = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(np.ravel(direction).tolist())
    letters = name[::-1]  # where the array's axes run to
    order = tuple(next(axis for axis in range(3) if letters[axis] in pair) for pair in ("SI", "PA", "LR"))
    return order, tuple(letters[axis] in "IAR" for axis in order)


def slice_axis(spacing_mm: Sequence[float]) -> int:
    """The axis the slices were taken along: 0 (axial) unless another one is coarser by a quarter."""
    coarsest = int(np.argmax(spacing_mm))
    return coarsest if spacing_mm[coarsest] > _THICK * spacing_mm[0] else 0


def slice_overlaps(truth: np.ndarray, prediction: np.ndarray, labels: LabelSet) -> tuple[np.ndarray, np.ndarray]:
    """|A and B| and |A| + |B| of each of K classes in each slice of label maps (D, H, W): two arrays (K, D)."""
    overlaps, sizes = [], []
    for values in labels.classes.values():
        one, other = mask_of(truth, values), mask_of(prediction, values)
        overlaps.append((one & other).sum(axis=(1, 2)))
        sizes.append(one.sum(axis=(1, 2)) + other.sum(axis=(1, 2)))
    return np.array(overlaps), np.array(sizes)


def choose_slices(scores: np.ndarray, sizes: np.ndarray, wanted: Sequence[str] = SLICES) -> dict[str, int]:
    """Which slices are the best, the median and the worst.

    Args:
        scores: (D,) mean Dice of each slice; NaN where no class is in truth or prediction: never chosen.
        sizes: (D,) voxels of all classes in truth and prediction.
        wanted: names out of `SLICES`.

    Returns:
        Name -> index, in the order of `SLICES`; a slice that is several of them is there once ("best and median").
        The lower median where their number is even.  Among slices of equal score one with more voxels is preferred (a
        sliver shows nothing), then the first.  {"middle": index} where no slice has a score.
    """
    candidates = np.flatnonzero(~np.isnan(scores))
    if not len(candidates):
        return {"middle": len(scores) // 2}
    rising = sorted(candidates, key=lambda i: (scores[i], -sizes[i], i))
    best = min(candidates, key=lambda i: (-scores[i], -sizes[i], i))
    names: dict[int, list[str]] = {}
    for name, index in zip(SLICES, (best, rising[(len(rising) - 1) // 2], rising[0])):
        if name in wanted:
            names.setdefault(int(index), []).append(name)
    return {" and ".join(several): index for index, several in names.items()}


def window_of(image: np.ndarray) -> tuple[float, float]:
    """The values to show as black and as white: the 2nd and the 98th percentile of grey values, 0 and 255 of colours.

    Args:
        image: (D, H, W), or (D, H, W, 3) for colours.
    """
    if image.ndim == 4:
        return 0.0, 255.0
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, WINDOW_PERCENT)
    if high <= low:  # nearly all of it has one value: show what stands out from it
        low, high = finite.min(), finite.max()
    return float(low), float(high)


def displayable(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Values of any shape -> [0, 1], what is not a number black."""
    low, high = window
    finite = np.nan_to_num(image, nan=low, posinf=high, neginf=low)
    return np.clip((finite - low) / max(high - low, 1e-12), 0, 1)
