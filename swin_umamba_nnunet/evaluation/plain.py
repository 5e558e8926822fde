"""The convention this package stands behind: no rounding, no cropping, true surfaces, empty cases said.

Per case and class: Dice and IoU of the voxels; NSD, HD95 and ASSD of the surfaces (contours where the file is 2D) in
the unit of the file.  Both masks empty is undefined, exactly one empty gives Dice, IoU and NSD 0 and infinite
distances.  With IoU thresholds also F1 of objects.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from swin_umamba_nnunet.evaluation import instances, surfaces
from swin_umamba_nnunet.evaluation.labels import LabelSet, mask_of, without_ignored
from swin_umamba_nnunet.evaluation.records import Convention, Measurement

NAME = "plain"
DEFAULT_TOLERANCE = 2.0  # mm in volumes, pixels in images without a physical spacing

_OVERLAP = (
    "Dice = 2TP/(2TP+FP+FN), IoU = TP/(TP+FP+FN): overlap of voxels (pixels) per case and class, 1 is best. Over all "
    "classes: mean of the class means. The ignore label counts as background on both sides."
)
_DISTANCES = (
    " NSD = share of both surfaces within the tolerance of the other, 1 is best; HD95, ASSD = 95th percentile (of the "
    "larger direction) and mean of the distances between the surfaces, 0 is best; area-weighted, by the "
    "surface-distance package. Images have contours for surfaces. Spacing from the ground truth's file, pixels where "
    "it has none."
)
_EMPTY = (
    " Both masks empty: undefined. Exactly one empty: {zeros} 0{infinite}. Means leave out and count what is undefined"
    "{or_infinite}."
)
_MEDPY = " HD95_medpy = MedPy's HD95: 95th percentile of both directed lists of border-voxel distances joined."
INSTANCE_DEFINITION = {
    "components": "Objects are the connected components of each class, diagonal contact joining",
    "ids": "Every value above 0 is one object, in ground truth and prediction",
    "gt-ids": "Every value above 0 of the ground truth is one object; predicted objects are the connected components "
    "of label 1, diagonal contact joining",
}
_MATCHING = (
    "; matched one to one where IoU >= the threshold; F1 = 2TP/(2TP+FP+FN), undefined where neither side has an object"
)


@dataclass(frozen=True)
class PlainSettings:
    """What `score_masks` computes.

    Attributes:
        tolerances: class name -> NSD tolerance in the unit of the file.
        default_tolerance: of classes not named there.
        distances: whether to compute NSD, HD95 and ASSD.
        medpy_hd95: MedPy's HD95 (border voxels) too.
        spacing_free: the distances of MedPy's HD95 in voxels, whatever the spacing.
        iou_thresholds: for F1 of objects; none, no F1.
    """

    tolerances: Mapping[str, float] = field(default_factory=dict)
    default_tolerance: float = DEFAULT_TOLERANCE
    distances: bool = True
    medpy_hd95: bool = False
    spacing_free: bool = False
    iou_thresholds: tuple[float, ...] = ()


def convention(settings: PlainSettings, objects: str = "components") -> Convention:
    """The definition in words, as the output prints it."""
    text = _OVERLAP + (_DISTANCES if settings.distances else "") + (_MEDPY if settings.medpy_hd95 else "")
    distances = settings.distances or settings.medpy_hd95
    text += _EMPTY.format(
        zeros="Dice, IoU and NSD" if settings.distances else "Dice and IoU",
        infinite=", distances infinite" if distances else "", or_infinite=" or infinite" if distances else "",
    )  # fmt: skip
    if settings.iou_thresholds:
        text += " " + INSTANCE_DEFINITION[objects] + _MATCHING + "."
    return Convention(NAME, text)


def score_labels(
    case: str,
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float],
    unit: str,
    labels: LabelSet,
    settings: PlainSettings,
) -> list[Measurement]:
    """Score every class of two label maps.

    Args:
        case: name.
        truth, prediction: label maps of one shape, (H, W) or (D, H, W).
        spacing: per axis, in `unit`.
        unit: "mm", "px" or "voxel".
        labels: the classes.
        settings: what to compute.
    """
    truth, prediction, n_elements = without_ignored(truth, prediction, labels.ignore)
    result = []
    for name, values in labels.classes.items():
        pair = mask_of(truth, values), mask_of(prediction, values)
        result += score_masks(case, name, *pair, spacing, unit, settings, n_elements)
        if settings.iou_thresholds:
            result += score_objects(case, name, *_components(*pair), settings.iou_thresholds)
    return result


def score_masks(
    case: str,
    label: str,
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float],
    unit: str,
    settings: PlainSettings,
    n_elements: int | None = None,
) -> list[Measurement]:
    """Overlap and distances of two masks of one class; `n_elements` (default: all) only enters TN."""
    n_truth, n_prediction = int(np.count_nonzero(truth)), int(np.count_nonzero(prediction))
    n_elements = truth.size if n_elements is None else n_elements
    if n_truth or n_prediction:
        box = surfaces.union_box(truth, prediction)
        truth, prediction = truth[box], prediction[box]
    tp = int(np.count_nonzero(truth & prediction))
    fp, fn = n_prediction - tp, n_truth - tp
    tn = n_elements - tp - fp - fn
    element = "px" if truth.ndim == 2 else "voxel"
    result = [
        Measurement(case, label, "Dice", dice(tp, fp, fn), "1", NAME),
        Measurement(case, label, "IoU", tp / (tp + fp + fn) if tp + fp + fn else math.nan, "1", NAME),
        *(
            Measurement(case, label, name, value, element, NAME, count=True)
            for name, value in (("TP", tp), ("FP", fp), ("FN", fn), ("TN", tn))
        ),
    ]
    if settings.distances:
        tolerance = settings.tolerances.get(label, settings.default_tolerance)
        scores = surfaces.surface_scores(truth, prediction, spacing, tolerance)
        result += [
            Measurement(case, label, "NSD", scores.nsd, "1", NAME, f"tolerance {tolerance:g} {unit}"),
            Measurement(case, label, "HD95", scores.hd95, unit, NAME),
            Measurement(case, label, "ASSD", scores.assd, unit, NAME),
        ]
    if settings.medpy_hd95:
        value = surfaces.border_voxel_hd95(truth, prediction, None if settings.spacing_free else spacing)
        hd95_unit = element if settings.spacing_free else unit
        result.append(Measurement(case, label, "HD95_medpy", value, hd95_unit, NAME, "border voxels"))
    return result


def score_objects(
    case: str, label: str, truth: np.ndarray, prediction: np.ndarray, iou_thresholds: Sequence[float]
) -> list[Measurement]:
    """F1, precision and recall of objects given by ids, with their counts, at every threshold."""
    result = []
    for threshold in iou_thresholds:
        counts = instances.match_objects(truth, prediction, threshold)
        found, there = counts.tp + counts.fp, counts.tp + counts.fn
        at = f"@{threshold:g}"
        detail = f"objects, IoU >= {threshold:g}"
        result += [
            Measurement(case, label, f"F1{at}", counts.f1, "1", NAME, detail),
            Measurement(case, label, f"Precision{at}", counts.tp / found if found else math.nan, "1", NAME, detail),
            Measurement(case, label, f"Recall{at}", counts.tp / there if there else math.nan, "1", NAME, detail),
            *(
                Measurement(case, label, f"{name}{at}", value, "count", NAME, detail, count=True)
                for name, value in (("TP", counts.tp), ("FP", counts.fp), ("FN", counts.fn))
            ),
        ]
    return result


def _components(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return instances.connected_components(truth), instances.connected_components(prediction)


def dice(tp: int, fp: int, fn: int) -> float:
    """2TP/(2TP+FP+FN); NaN where there is nothing."""
    total = 2 * tp + fp + fn
    return 2 * tp / total if total else math.nan
