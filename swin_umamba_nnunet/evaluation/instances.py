"""Objects: found as connected components or given as ids, matched one to one by overlap, counted."""

import math
from typing import NamedTuple

import numpy as np


class Counts(NamedTuple):
    """Matched and unmatched objects.

    Attributes:
        tp: matched pairs.
        fp: predicted objects without a partner.
        fn: true objects without a partner.
    """

    tp: int
    fp: int
    fn: int

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN where there is no object at all."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else math.nan


def connected_components(mask: np.ndarray) -> np.ndarray:
    """Ids 1, 2, ... of the objects of a boolean mask; diagonal contact joins (8 neighbours in 2D, 26 in 3D)."""
    from scipy import ndimage

    return ndimage.label(mask, structure=np.ones((3,) * mask.ndim))[0]


def count_objects(ids: np.ndarray) -> int:
    """How many different ids above 0."""
    return _indexed(ids)[0]


def match_objects(truth: np.ndarray, prediction: np.ndarray, iou_threshold: float) -> Counts:
    """Match objects one to one, as many pairs as possible with IoU >= threshold.

    Above a threshold of 0.5 no object has two possible partners; at 0.5 and below the number of pairs is that of the
    Hungarian method on the thresholded overlaps.

    Args:
        truth, prediction: ids (0 is background), one shape.
        iou_threshold: smallest intersection over union of a pair, above 0.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    n_truth, truth_index, truth_sizes = _indexed(truth)
    n_prediction, prediction_index, prediction_sizes = _indexed(prediction)
    both = (truth_index >= 0) & (prediction_index >= 0)
    if not both.any():
        return Counts(0, n_prediction, n_truth)
    pairs, overlap = np.unique(
        truth_index[both].astype(np.int64) * n_prediction + prediction_index[both], return_counts=True
    )
    row, column = np.divmod(pairs, n_prediction)
    iou = overlap / (truth_sizes[row] + prediction_sizes[column] - overlap)
    good = iou >= iou_threshold
    graph = csr_array((np.ones(int(good.sum()), np.int8), (row[good], column[good])), shape=(n_truth, n_prediction))
    tp = int(np.count_nonzero(maximum_bipartite_matching(graph, perm_type="column") >= 0))
    return Counts(tp, n_prediction - tp, n_truth - tp)


def without_border_objects(ids: np.ndarray, width: int) -> np.ndarray:
    """The ids without the objects that have an element in the outer `width` rows or columns (planes in 3D)."""
    border = ids.copy()
    border[(slice(width, -width),) * ids.ndim] = 0
    return np.where(np.isin(ids, border[border > 0]), 0, ids)


def _indexed(ids: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of different ids above 0; per element the index of its id (-1 for background), flat; sizes."""
    flat = ids.reshape(-1)
    if flat.size and int(flat.max()) > 2 * flat.size:  # too sparse for a table over all ids
        flat = np.unique(flat, return_inverse=True)[1].reshape(-1) + int(flat.min() > 0)
    sizes = np.bincount(flat)
    sizes[0] = 0
    index = np.cumsum(sizes > 0) - 1
    index[0] = -1
    return int(np.count_nonzero(sizes)), index[flat], sizes[sizes > 0]
