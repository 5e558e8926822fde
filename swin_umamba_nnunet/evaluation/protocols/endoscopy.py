"""Protocol "endoscopy": the DSC and NSD scripts of Swin-UMamba and U-Mamba for instruments in endoscopy images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from swin_umamba_nnunet.evaluation import plain
from swin_umamba_nnunet.evaluation.cases import CasePair, Segmentation, read_pair
from swin_umamba_nnunet.evaluation.labels import LabelSet
from swin_umamba_nnunet.evaluation.protocols.base import CaseFacts, EvaluationProtocol, require_dimensions
from swin_umamba_nnunet.evaluation.records import WHOLE_IMAGE, Convention, Measurement
from swin_umamba_nnunet.evaluation.surfaces import surface_dice

TOLERANCE = 2.0  # px
DECIMALS = 4
_PLAIN = plain.PlainSettings(default_tolerance=TOLERANCE)

_AUTHORS = Convention(
    "endoscopy",
    "The authors' scripts: per image the mean DSC and NSD over the labels that ground truth or prediction has, rounded "
    "to 4 decimals, then averaged over images. NSD at 2 px.",
    (
        "The NSD is no boundary score: the 2D mask is taken for a volume one voxel thick, so that its whole inside is "
        "surface and the value is that of a dilated overlap, usually far above the 2D contour NSD (plain).",
        "The smallest value that occurs is dropped as background, in ground truth and prediction separately: without "
        "a background pixel the smallest label is not scored.",
        "A label that only one side has counts 0, so one stray pixel of a wrong label costs 1/(number of labels).",
        "An image without any label to score stops the authors' scripts (AssertionError); here it is undefined and "
        "left out of the mean.",
        "Values are rounded per image (numpy rounding) before the mean; the values per label are not rounded.",
    ),
)
_PLAIN_MEAN = (
    " Image values are means over the labels that ground truth or prediction of this image has (0 is background); an "
    "image without any is undefined."
)


@dataclass(frozen=True)
class Endoscopy(EvaluationProtocol):
    """The authors' scores with the plain ones (true contours) beside them.

    Attributes:
        labels: names for label values; None names them by number.
    """

    name: ClassVar[str] = "endoscopy"
    labels: LabelSet | None = None

    @property
    def conventions(self) -> tuple[Convention, ...]:
        return (_AUTHORS, Convention(plain.NAME, plain.convention(_PLAIN).definition + _PLAIN_MEAN))

    @property
    def summary_keys(self) -> dict[str, str]:
        return {name: str(value) for value, name in self._names.items()}

    @property
    def _names(self) -> dict[int, str]:
        if self.labels is None:
            return {}
        return {values[0]: name for name, values in self.labels.classes.items() if len(values) == 1}

    def read(self, pair: CasePair) -> tuple[Segmentation, Segmentation]:
        return read_pair(pair, self.labels.reader if self.labels else None)

    def check_values(self, pair: CasePair, facts: CaseFacts) -> None:
        require_dimensions(pair, facts, 2, self.name)

    def score(self, pair: CasePair) -> list[Measurement]:
        truth, prediction = self.read(pair)
        name_of = self._names
        scored = authors_labels(truth.array, prediction.array)
        result, dsc, nsd = [], [], []
        for label in scored:
            masks = truth.array == label, prediction.array == label
            dsc.append(_dice(*masks))
            nsd.append(slab_nsd(*masks))
            name = name_of.get(label, str(label))
            result += [
                Measurement(pair.name, name, "DSC", dsc[-1], "1", self.name),
                Measurement(pair.name, name, "NSD", nsd[-1], "1", self.name, "tolerance 2 px, slab one voxel thick"),
            ]
        detail = "rounded to 4 decimals"
        result += [
            Measurement(pair.name, WHOLE_IMAGE, "DSC", _rounded_mean(dsc), "1", self.name, detail),
            Measurement(
                pair.name, WHOLE_IMAGE, "NSD", _rounded_mean(nsd), "1", self.name,
                f"tolerance 2 px, slab one voxel thick, {detail}",
            ),
        ]  # fmt: skip
        return result + self._plain_scores(pair.name, truth, prediction)

    def _plain_scores(self, case: str, truth: Segmentation, prediction: Segmentation) -> list[Measurement]:
        present = sorted({*np.unique(truth.array).tolist(), *np.unique(prediction.array).tolist()} - {0})
        spacing = (1.0,) * truth.array.ndim  # the tolerance is in pixels, whatever a header says
        result = []
        for label in present:
            masks = truth.array == label, prediction.array == label
            result += plain.score_masks(case, self._names.get(label, str(label)), *masks, spacing, "px", _PLAIN)
        for metric in ("Dice", "IoU", "NSD"):
            values = [measurement.value for measurement in result if measurement.metric == metric]
            detail = "tolerance 2 px" if metric == "NSD" else ""
            mean = float(np.mean(values)) if values else math.nan
            result.append(Measurement(case, WHOLE_IMAGE, metric, mean, "1", plain.NAME, detail))
        return result

    def notes(self, measurements: Sequence[Measurement]) -> tuple[str, ...]:
        undefined = [
            measurement.case
            for measurement in measurements
            if measurement.convention == self.name and measurement.metric == "DSC"
            and measurement.label == WHOLE_IMAGE and math.isnan(measurement.value)
        ]  # fmt: skip
        if not undefined:
            return ()
        return (
            f"The authors' scripts stop with AssertionError at images without a label to score "
            f"({', '.join(undefined)}); they are undefined here and left out of the means.",
        )


def authors_labels(truth: np.ndarray, prediction: np.ndarray) -> list[int]:
    """Labels the authors score: those of both images, each without the smallest value that occurs in it."""
    return sorted({*np.unique(truth)[1:].tolist(), *np.unique(prediction)[1:].tolist()})


def slab_nsd(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Surface Dice at 2 px of two 2D masks as volumes one voxel thick (H, W, 1), where all of a mask is surface."""
    return surface_dice(truth[..., None], prediction[..., None], (1.0, 1.0, 1.0), TOLERANCE)


def _dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    return 2 * int((truth & prediction).sum()) / (int(truth.sum()) + int(prediction.sum()))


def _rounded_mean(values: list[float]) -> float:
    return float(np.round(np.mean(values), DECIMALS)) if values else math.nan
