"""Overlap of two masks, and distances between their surfaces by the libraries that define them.

`surface_distance` is DeepMind's implementation of Nikolov et al., "Deep learning to achieve clinically applicable
segmentation of head and neck anatomy for radiotherapy" (2018): surfaces are made of elements between the voxel
centres, each with its area (2D: length), so that results do not depend on how finely a surface is sampled.  `medpy`
counts border voxels instead; the Synapse papers use it.
"""

import importlib
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet.evaluation.records import EvaluationError

INSTALL_LINE = install_line("evaluate")


class SurfaceScores(NamedTuple):
    """Area-weighted scores of two surfaces.

    Attributes:
        nsd: normalised surface distance (surface Dice): part of both surfaces within the tolerance of the other.
        hd95: the larger of the two directed 95th percentiles of distance, in the unit of the spacing.
        assd: mean distance over both surfaces together, in the unit of the spacing.
    """

    nsd: float
    hd95: float
    assd: float


UNDEFINED = SurfaceScores(math.nan, math.nan, math.nan)
ONE_EMPTY = SurfaceScores(0.0, math.inf, math.inf)


def surface_scores(
    truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float], tolerance: float
) -> SurfaceScores:
    """Scores of two masks.

    Args:
        truth, prediction: boolean masks of one shape, 2D or 3D; a 2D mask has a contour, not a surface.
        spacing: per axis.
        tolerance: largest distance that counts as agreement, in the unit of `spacing`.

    Returns:
        Undefined (NaN) where both masks are empty; 0 and infinite distances where exactly one is.
    """
    if not (truth.any() and prediction.any()):
        return ONE_EMPTY if truth.any() or prediction.any() else UNDEFINED
    library = surface_distance()
    box = union_box(truth, prediction)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it uses SciPy's old module names
        distances = library.compute_surface_distances(
            np.ascontiguousarray(truth[box]), np.ascontiguousarray(prediction[box]), tuple(spacing)
        )
    nsd = library.compute_surface_dice_at_tolerance(distances, tolerance)
    hd95 = library.compute_robust_hausdorff(distances, 95)
    to_prediction, to_truth = distances["distances_gt_to_pred"], distances["distances_pred_to_gt"]
    truth_areas, prediction_areas = distances["surfel_areas_gt"], distances["surfel_areas_pred"]
    total = float(np.sum(to_prediction * truth_areas) + np.sum(to_truth * prediction_areas))
    assd = total / float(np.sum(truth_areas) + np.sum(prediction_areas))
    return SurfaceScores(float(nsd), float(hd95), assd)


def border_voxel_hd95(truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """HD95 as MedPy defines it: 95th percentile of both directed lists of border-voxel distances joined.

    Args:
        truth, prediction: boolean masks of one shape.
        spacing: per axis; None counts voxels along every axis.

    Returns:
        NaN where both masks are empty, infinity where exactly one is.
    """
    if not (truth.any() and prediction.any()):
        return math.inf if truth.any() or prediction.any() else math.nan
    box = union_box(truth, prediction)  # everything outside is background, so the distances stay the same
    return float(medpy_hd95()(prediction[box], truth[box], voxelspacing=spacing))


def dice(truth: np.ndarray, prediction: np.ndarray, empty: float = math.nan) -> float:
    """2 |A and B| / (|A| + |B|) of two boolean masks, and what it is where both are empty."""
    total = int(truth.sum()) + int(prediction.sum())
    return 2 * int((truth & prediction).sum()) / total if total else empty


def union_box(truth: np.ndarray, prediction: np.ndarray) -> tuple[slice, ...]:
    """Slices of the smallest box around both masks; full slices where both are empty."""
    from scipy import ndimage

    either = (truth | prediction).view(np.uint8)
    (box,) = ndimage.find_objects(either, 1)
    return box or (slice(None),) * either.ndim


def surface_distance():
    """The surface-distance package; called early, it says before any file is read that it is missing."""
    return _library("surface_distance", "surface distances need the surface-distance package")


def medpy_hd95():
    """MedPy's function; called early, it says before any file is read that it is missing."""
    return _library("medpy.metric.binary", "this HD95 is MedPy's").hd95


def _library(name: str, needed: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EvaluationError(f"{needed}, which is not installed; get it with   {INSTALL_LINE}") from error
