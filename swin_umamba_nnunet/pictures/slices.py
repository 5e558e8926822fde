"""Which slices of a volume are shown, which way up and in which grey values, and the Dice that decides.  Pure.

Arrays are as nnU-Net's readers give them, in (z, y, x) order with spacings in mm.
"""

from collections.abc import Sequence

import numpy as np

PLANES = ("axial", "coronal", "sagittal")  # at right angles to the axes S, P and L
SLICES = ("best", "median", "worst")
WINDOW_PERCENT = (2.0, 98.0)
_THICK = 1.25  # times the axial spacing: from there on another axis counts as the one the slices were taken along


def axes_in_lps(direction: np.ndarray | None) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """For the patient's axes S (to the head), P (to the back) and L: which array axis runs along it, and if backwards.

    Args:
        direction: (3, 3) direction cosines of the x, y, z axes (columns) in LPS coordinates, SimpleITK's way; None
            leaves the array as it is.

    An oblique axis counts as the nearest main axis; nothing is interpolated.
    """
    if direction is None:
        return (0, 1, 2), (False, False, False)
    cosines = np.asarray(direction, dtype=float).reshape(3, 3)[::-1, ::-1]  # both as z, y, x
    order, backwards = [0, 0, 0], [False, False, False]
    size = np.abs(cosines)
    for _ in range(3):  # the largest cosine first: an oblique volume gets three different axes too
        target, axis = np.unravel_index(np.argmax(size), (3, 3))
        order[target], backwards[target] = int(axis), bool(cosines[target, axis] < 0)
        size[target, :] = size[:, axis] = -1
    return tuple(order), tuple(backwards)


def slice_axis(spacing_mm: Sequence[float]) -> int:
    """The axis the slices were taken along: 0 (axial) unless another one is coarser by a quarter."""
    coarsest = int(np.argmax(spacing_mm))
    return coarsest if spacing_mm[coarsest] > _THICK * spacing_mm[0] else 0


def confusion(truth: np.ndarray, prediction: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """How many voxels of each slice have which pair of labels.

    Args:
        truth, prediction: (D, H, W).
        values: the K labels to tell apart, ascending.

    Returns:
        (D, K + 1, K + 1) counts, truth first; index K stands for every other label.
    """
    known = np.asarray(values)
    count = len(known) + 1

    def index(labels: np.ndarray) -> np.ndarray:
        position = np.searchsorted(known, labels).clip(max=len(known) - 1)
        return np.where(known[position] == labels, position, len(known))

    pairs = index(truth) * count + index(prediction)
    return np.stack([np.bincount(one.ravel(), minlength=count**2) for one in pairs]).reshape(-1, count, count)


def dice(counts: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Dice = 2 |A and B| / (|A| + |B|) of one class; NaN where it is in neither.

    Args:
        counts: (..., K + 1, K + 1) as `confusion` gives them.
        members: (K + 1,) bool, the labels that make up the class.
    """
    in_truth, in_prediction = counts[..., members, :], counts[..., members]
    both = in_truth[..., members].sum(axis=(-2, -1))
    sizes = in_truth.sum(axis=(-2, -1)) + in_prediction.sum(axis=(-2, -1))
    return np.divide(2.0 * both, sizes, out=np.full(np.shape(both), np.nan), where=sizes > 0)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over axis 0 of the values that are not NaN; NaN where all are."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def choose_slices(scores: np.ndarray, sizes: np.ndarray, wanted: Sequence[str] = SLICES) -> dict[str, int]:
    """Which slices are the best, the median and the worst.

    Args:
        scores: (D,) mean Dice of each slice; NaN where no class is in truth or prediction: never chosen.
        sizes: (D,) voxels of any class in truth or prediction.
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
    found = {"best": best, "median": rising[(len(rising) - 1) // 2], "worst": rising[0]}
    names: dict[int, list[str]] = {}
    for name in SLICES:
        if name in wanted:
            names.setdefault(int(found[name]), []).append(name)
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
    low, high = (float(value) for value in np.percentile(finite, WINDOW_PERCENT))
    if high <= low:  # nearly all of it has one value: show what stands out from it
        low, high = float(finite.min()), float(finite.max())
    return low, high


def displayable(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Values of any shape -> [0, 1], what is not a number black."""
    low, high = window
    finite = np.nan_to_num(image, nan=low, posinf=high, neginf=low)
    return np.clip((finite - low) / max(high - low, 1e-12), 0, 1)
