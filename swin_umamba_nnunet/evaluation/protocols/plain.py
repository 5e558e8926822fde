"""Protocol "plain", which this package stands behind: no rounding, no cropping, true surfaces, empty cases said.

Per case and class: Dice and IoU of the voxels; NSD, HD95 and ASSD of the surfaces (contours where the file is 2D) in
the unit of the file.  Both masks empty is undefined, exactly one empty gives Dice, IoU and NSD 0 and infinite
distances.  With IoU thresholds also F1 of objects.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from swin_umamba_nnunet.evaluation import instances as objects
from swin_umamba_nnunet.evaluation import surfaces
from swin_umamba_nnunet.evaluation.cases import CasePair
from swin_umamba_nnunet.evaluation.labels import (
    LabelSet,
    labels_as_found,
    mask_of,
    parse_labels,
    without_ignored,
)
from swin_umamba_nnunet.evaluation.protocols.base import (
    CaseFacts,
    EvaluationProtocol,
    dataset_json_option,
    iou_option,
    made_by,
    option,
)
from swin_umamba_nnunet.evaluation.readers import Segmentation
from swin_umamba_nnunet.evaluation.records import (
    PLAIN,
    WHOLE_IMAGE,
    Convention,
    EvaluationError,
    Measurement,
    measurements_of,
)

DEFAULT_TOLERANCE = 2.0  # mm in volumes, pixels in images without a physical spacing
COUNTS = ("TP", "FP", "FN", "TN")
OBJECT = "object"
INTERIOR = 1  # the class of the insides of cells in U-Mamba's cell dataset

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
INSTANCES = {
    "components": "Objects are the connected components of each class, diagonal contact joining",
    "ids": "Every value above 0 is one object, in ground truth and prediction",
    "gt-ids": "Every value above 0 of the ground truth is one object; predicted objects are the connected components "
    "of label 1, diagonal contact joining",
}
_MATCHING = (
    "; matched one to one where IoU >= the threshold; F1 = 2TP/(2TP+FP+FN), undefined where neither side has an object"
)


def _tolerances(given: Any) -> dict[str, float]:
    """Class name -> tolerance, "" for the classes that are not there."""
    result = {"": DEFAULT_TOLERANCE}
    if isinstance(given, (int, float)):
        given = {"": given}
    elif not isinstance(given, Mapping):
        given = {name: number for name, _, number in (str(text).rpartition("=") for text in given or ())}
    for name, number in given.items():
        try:
            result[name] = float(number)
        except ValueError:
            result[name] = math.nan
        if not 0 <= result[name] < math.inf:
            raise EvaluationError(
                f"--tolerance {f'{name}=' if name else ''}{number}: expected a distance of 0 or more, or NAME=DISTANCE "
                "(mm, or pixels where files have no physical spacing)"
            )
    return result


@dataclass(frozen=True)
class Plain(EvaluationProtocol):
    """The plain convention.

    Attributes:
        labels: the classes, `["1", "liver=1", "tumour=1,2"]` or a ready `LabelSet`, which they are made into.
        dataset_json: nnU-Net's dataset.json to take the classes from, which is read into a `LabelSet`; where neither
            is named, that which nnU-Net left beside the predictions or the ground truth, else every value in the files
            is a class.
        tolerance: of the NSD, in the unit of the files: one number, class name -> number, or texts such as `liver=5`;
            made into a dict with "" for the other classes.
        iou_thresholds: of the F1 of objects.
        instances: what an object is: "components" of each class, "ids" in both files, or "gt-ids" (ids in the ground
            truth, components of label 1 in the prediction).  With ids there is one class, "object".
        distances: False leaves NSD, HD95 and ASSD out.
        medpy_hd95: MedPy's HD95 (border voxels) too.
        in_voxels: MedPy's HD95 in voxels, whatever the spacing.

    Raises:
        EvaluationError: values out of range, or that do not go together.
    """

    name = PLAIN
    summary = "no rounding, no cropping, true surfaces and contours, empty cases counted"
    labels: Any = option(
        None,
        "classes: numbers, NAME=NUMBER, or NAME=NUMBER,NUMBER for a region",
        convert=made_by(parse_labels),
        nargs="+",
        metavar="LABEL",
    )
    dataset_json: Any = dataset_json_option()
    tolerance: Any = option(
        None,
        "of the NSD in mm (px without a physical spacing): a number, and NAME=NUMBER for single classes (default: 2)",
        convert=_tolerances,
        nargs="+",
        metavar="DISTANCE",
    )
    iou_thresholds: Sequence[float] = iou_option(
        (), "F1 of objects matched at these IoU thresholds (also for cells; default there: 0.5)"
    )
    instances: str | None = option(
        None,
        "what an object is: a connected component of a class; a value of the files, which then hold ids; or ids in the "
        "ground truth and components of class 1 in the predictions",
        choices=tuple(INSTANCES),
    )
    distances: bool = option(True, "leave out NSD, HD95 and mean surface distance", flag="--no-distances")
    medpy_hd95: bool = option(False, "HD95 by MedPy's definition (border voxels) too, also for abdomen")
    in_voxels: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.instances not in (None, *INSTANCES):
            raise EvaluationError(f"--instances {self.instances}: expected one of {', '.join(INSTANCES)}")
        if self.labels and self.dataset_json:
            raise EvaluationError("both labels and a dataset.json were given; give one of them")
        if self._ids and (self.labels or self.dataset_json):
            raise EvaluationError(
                f"with --instances {self.instances} files hold ids instead of labels; leave the labels out"
            )
        if self.instances and not self.iou_thresholds:
            object.__setattr__(self, "iou_thresholds", (0.5,))
        labels = self.labels or self.dataset_json
        unknown = sorted(self.tolerance.keys() - {""} - labels.classes.keys()) if labels else ()
        if labels and unknown:
            raise EvaluationError(
                f"--tolerance names {', '.join(unknown)}, which is no class; {labels.source} has "
                f"{', '.join(labels.classes)}"
            )

    @property
    def _ids(self) -> bool:
        return self.instances in ("ids", "gt-ids")

    @property
    def classes(self) -> LabelSet | None:
        return LabelSet({OBJECT: (1,)}) if self._ids else self.labels or self.dataset_json

    @property
    def ground_truth_suffix(self) -> str:
        return "_label" if self.instances == "gt-ids" else ""  # as U-Mamba's instance masks are called

    @property
    def conventions(self) -> tuple[Convention, ...]:
        text = _OVERLAP + (_DISTANCES if self.distances else "") + (_MEDPY if self.medpy_hd95 else "")
        infinite = self.distances or self.medpy_hd95
        text += _EMPTY.format(
            zeros="Dice, IoU and NSD" if self.distances else "Dice and IoU",
            infinite=", distances infinite" if infinite else "",
            or_infinite=" or infinite" if infinite else "",
        )
        if self.iou_thresholds:
            text += f" {INSTANCES[self.instances or 'components']}{_MATCHING}."
        return (Convention(PLAIN, text),)

    def require_libraries(self) -> None:
        if self.distances:
            surfaces.surface_distance()
        if self.medpy_hd95:
            surfaces.medpy_hd95()

    def complete(self, facts: Sequence[CaseFacts]) -> "Plain":
        if self.classes:
            return self
        found = frozenset().union(*(case.truth_values | case.prediction_values for case in facts))
        if not found - {0}:
            raise EvaluationError(
                "all files, ground truth and predictions, hold background only, so there is nothing to score; name the "
                "classes with --labels if that is right"
            )
        return replace(self, labels=labels_as_found(found))

    def score(self, pair: CasePair) -> list[Measurement]:
        truth, prediction = self.read(pair)
        if not self._ids:
            return self.score_labels(pair.name, truth, prediction)
        ids = prediction.array
        if self.instances == "gt-ids":
            ids = objects.connected_components(ids == INTERIOR)
        masks = truth.array > 0, ids > 0
        result = self.score_masks(pair.name, OBJECT, *masks, truth.spacing, truth.unit)
        return result + self.score_objects(pair.name, OBJECT, truth.array, ids)

    def score_labels(self, case: str, truth: Segmentation, prediction: Segmentation) -> list[Measurement]:
        """Score every class of two label maps of one shape."""
        labels = self.classes
        if labels is None:
            raise ValueError("the classes are not known yet; complete() finds them")
        true, predicted, n_elements = without_ignored(truth.array, prediction.array, labels.ignore)
        result = []
        for name, values in labels.classes.items():
            pair = mask_of(true, values), mask_of(predicted, values)
            result += self.score_masks(case, name, *pair, truth.spacing, truth.unit, n_elements)
            if self.iou_thresholds:
                result += self.score_objects(case, name, *map(objects.connected_components, pair))
        return result

    def score_masks(
        self,
        case: str,
        label: str,
        truth: np.ndarray,
        prediction: np.ndarray,
        spacing: Sequence[float],
        unit: str,
        n_elements: int | None = None,
    ) -> list[Measurement]:
        """Overlap and distances of two masks of one class.

        Args:
            case, label: names.
            truth, prediction: boolean masks of one shape, (H, W) or (D, H, W).
            spacing: per axis, in `unit`.
            unit: "mm", "px" or "voxel".
            n_elements: of the case (default: all), which only enters TN.
        """
        n_elements = truth.size if n_elements is None else n_elements
        n_truth, n_prediction = int(np.count_nonzero(truth)), int(np.count_nonzero(prediction))
        if n_truth or n_prediction:
            box = surfaces.union_box(truth, prediction)
            truth, prediction = truth[box], prediction[box]
        tp = int(np.count_nonzero(truth & prediction))
        counts = objects.Counts(tp, n_prediction - tp, n_truth - tp)
        union = n_truth + n_prediction - tp
        element = "px" if truth.ndim == 2 else "voxel"
        rows = [
            ("Dice", counts.f1, "1"),
            ("IoU", tp / union if union else math.nan, "1"),
            *((name, value, element, "", True) for name, value in zip(COUNTS, (*counts, n_elements - union))),
        ]
        if self.distances:
            tolerance = self.tolerance.get(label, self.tolerance[""])
            scores = surfaces.surface_scores(truth, prediction, spacing, tolerance)
            rows += [
                ("NSD", scores.nsd, "1", f"tolerance {tolerance:g} {unit}"),
                ("HD95", scores.hd95, unit),
                ("ASSD", scores.assd, unit),
            ]
        if self.medpy_hd95:
            value = surfaces.border_voxel_hd95(truth, prediction, None if self.in_voxels else spacing)
            rows.append(("HD95_medpy", value, element if self.in_voxels else unit, "border voxels"))
        return measurements_of(case, label, PLAIN, rows)

    def score_objects(self, case: str, label: str, truth: np.ndarray, prediction: np.ndarray) -> list[Measurement]:
        """F1, precision and recall of objects given by ids, with their counts, at every threshold."""
        result = []
        for threshold in self.iou_thresholds:
            counts = objects.match_objects(truth, prediction, threshold)
            found, there = counts.tp + counts.fp, counts.tp + counts.fn
            at, detail = f"@{threshold:g}", f"objects, IoU >= {threshold:g}"
            rows = [
                (f"F1{at}", counts.f1, "1", detail),
                (f"Precision{at}", counts.tp / found if found else math.nan, "1", detail),
                (f"Recall{at}", counts.tp / there if there else math.nan, "1", detail),
                *((f"{name}{at}", value, "count", detail, True) for name, value in zip(COUNTS, counts)),
            ]
            result += measurements_of(case, label, PLAIN, rows)
        return result

    def notes(self, measurements: Sequence[Measurement]) -> tuple[str, ...]:
        labels = self.labels or self.dataset_json
        if labels is None:
            return ()
        classes = ", ".join(f"{name} = {'+'.join(map(str, values))}" for name, values in labels.classes.items())
        notes = [f"Classes from {labels.source}: {classes}"]
        if labels.ignore is not None:
            notes.append(f"Elements with the ignore label {labels.ignore} in the ground truth were left out.")
        true, predicted = (
            {m.label for m in measurements if m.metric in ("TP", other) and m.value} for other in ("FN", "FP")
        )
        nowhere = [name for name in labels.classes if name not in true | predicted]
        if nowhere:
            notes.append(f"In no file, neither ground truth nor prediction: {', '.join(nowhere)}")
        if true and predicted and not true & predicted:
            notes.append("No class is in both ground truth and predictions: are the label numbers the same?")
        return tuple(notes)


@dataclass(frozen=True)
class PaperProtocol(EvaluationProtocol):
    """The way of a paper's evaluation script, with plain values beside it.

    Attributes:
        authors: what the script's numbers mean.
        odd: convention, beginning of the metric and test of the value where the script does what has to be said.
        note: what that is; {} is where.
        addition: to the definition of the plain values.
    """

    authors: ClassVar[Convention]
    odd: ClassVar[tuple[str, str, Callable[[float], bool]]]
    note: ClassVar[str]
    addition: ClassVar[str] = ""

    @property
    @abstractmethod
    def beside(self) -> Plain:
        """What gives the plain values."""

    @property
    def conventions(self) -> tuple[Convention, ...]:
        (plain,) = self.beside.conventions
        return (self.authors, Convention(PLAIN, plain.definition + self.addition))

    @property
    def classes(self) -> LabelSet | None:
        return self.beside.classes

    def require_libraries(self) -> None:
        self.beside.require_libraries()

    def notes(self, measurements: Sequence[Measurement]) -> tuple[str, ...]:
        convention, metric, is_odd = self.odd
        where = dict.fromkeys(
            m.case if m.label == WHOLE_IMAGE else f"{m.case}/{m.label}"
            for m in measurements
            if m.convention == convention and m.metric.startswith(metric) and is_odd(m.value)
        )
        return (self.note.format(", ".join(where)),) if where else ()
