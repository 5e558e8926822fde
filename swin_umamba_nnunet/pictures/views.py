"""From a case's arrays to the slices that are drawn, each with its title."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from swin_umamba_nnunet.evaluation.labels import without_ignored
from swin_umamba_nnunet.pictures.slices import (
    PLANES,
    SLICES,
    axes_in_lps,
    choose_slices,
    confusion,
    dice,
    displayable,
    mean_of_defined,
    slice_axis,
    window_of,
)

Classes = Mapping[str, Sequence[int]]  # name -> the labels that make it up: several for nnU-Net's regions

_EDGES = (("R", "A"), ("R", "S"), ("A", "S"))  # at the left and at the top of each plane, as radiologists look at it


@dataclass(frozen=True)
class Case:
    """One case as it was read.

    Attributes:
        name: nnU-Net's case identifier.
        image: (D, H, W) grey values, or (D, H, W, 3) colours in [0, 255]; D = 1 for a 2D image.
        truth, prediction: (D, H, W) labels.
        spacing_mm: of the three axes.  For pictures without a spacing the first is meaningless and the others are 1.
        direction: (3, 3) direction cosines of the x, y and z axes (columns) in the patient's LPS coordinates, as
            SimpleITK gives them; None where the file has none.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    spacing_mm: tuple[float, float, float]
    direction: np.ndarray | None = None


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
    """What there is to see of a case: its slices, and Dice of the whole case by class (NaN: in neither mask)."""

    name: str
    views: tuple[View, ...]
    dice: Mapping[str, float]

    @property
    def mean_dice(self) -> float:
        """Mean over the classes that have a Dice; NaN where none has."""
        return float(mean_of_defined(np.array(list(self.dice.values()))))


def look_at(
    case: Case,
    classes: Classes,
    *,
    ignore: int | None = None,
    wanted: Sequence[str] = SLICES,
    plane: str | None = None,
) -> Look:
    """Score a case and pick the slices to show.

    Args:
        case: its arrays have one shape.
        classes: of the foreground.
        ignore: label of `truth` that marks voxels nobody scores.
        wanted: names out of `SLICES`; a 2D image is shown whatever they are.
        plane: one of `PLANES`; None for the one the slices were taken in.
    """
    order, backwards = axes_in_lps(case.direction)
    spacing = [case.spacing_mm[axis] for axis in order]
    flat = case.truth.shape[0] == 1
    if flat:
        across = order.index(0)
    else:
        across = slice_axis(spacing) if plane is None else PLANES.index(plane)
    values = sorted({value for member in classes.values() for value in member})
    truth, prediction, _ = without_ignored(case.truth, case.prediction, ignore)
    counts = confusion(np.moveaxis(truth, order[across], 0), np.moveaxis(prediction, order[across], 0), values)
    members = [np.append(np.isin(values, member), False) for member in classes.values()]
    whole = counts.sum(axis=0)
    scores = mean_of_defined(np.stack([dice(counts, member) for member in members]))
    sizes = counts.sum(axis=(1, 2)) - counts[:, -1, -1]
    window = window_of(case.image)
    ignored = np.zeros(case.truth.shape, bool) if ignore is None else case.truth == ignore
    anatomical = case.direction is not None
    views = []
    for word, index in choose_slices(scores, sizes, wanted).items():
        shown, shown_truth, shown_prediction, shown_ignored = (
            _upright(np.take(array, index, axis=order[across]), order, backwards, across, anatomical)
            for array in (case.image, truth, prediction, ignored)
        )
        plane_name = PLANES[across] if anatomical else ""
        caption = () if flat else _caption(word, plane_name, index, len(scores), scores[index])
        rows, columns = (spacing[axis] for axis in range(3) if axis != across)
        edges = _EDGES[across] if anatomical and not flat else None
        shown = displayable(shown, window)
        views.append(View(caption, shown, shown_truth, shown_prediction, shown_ignored, rows / columns, edges))
    return Look(case.name, tuple(views), {name: float(dice(whole, member)) for name, member in zip(classes, members)})


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


def _caption(word: str, plane: str, index: int, count: int, score: float) -> tuple[str, ...]:
    where = f"{plane} slice {index + 1} of {count}".strip()
    if np.isnan(score):
        return f"{word} slice", where, "nothing in either mask"
    return f"{word} slice", where, f"Dice of the slice {score:.3f}"
