"""Protocol "endoscopy": the DSC and NSD scripts of Swin-UMamba and U-Mamba for instruments in endoscopy images."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from swin_umamba_nnunet.evaluation.cases import CasePair
from swin_umamba_nnunet.evaluation.labels import LabelSet, values_in
from swin_umamba_nnunet.evaluation.protocols.base import ROUNDED, dataset_json_option, rounded
from swin_umamba_nnunet.evaluation.protocols.plain import PaperProtocol, Plain
from swin_umamba_nnunet.evaluation.records import PLAIN, WHOLE_IMAGE, Convention, Measurement, measurements_of
from swin_umamba_nnunet.evaluation.surfaces import dice, surface_scores

TOLERANCE = 2.0  # px
_AT = "tolerance 2 px"
_SLAB = f"{_AT}, slab one voxel thick"

_SCRIPTS = Convention(
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


@dataclass(frozen=True)
class Endoscopy(PaperProtocol):
    """The authors' scores with the plain ones (true contours) beside them.

    Attributes:
        dataset_json: nnU-Net's dataset.json with names for label values; without it they are named by number.
    """

    name = "endoscopy"
    summary = "Swin-UMamba and U-Mamba, DSC and NSD of instruments in endoscopy images"
    dimensions = 2
    authors = _SCRIPTS
    addition = (
        " Image values are means over the labels that ground truth or prediction of this image has (0 is background); "
        "an image without any is undefined."
    )
    odd = (name, "DSC", math.isnan)
    note = (
        "The authors' scripts stop with AssertionError at images without a label to score ({}); they are undefined "
        "here and left out of the means."
    )
    dataset_json: Any = dataset_json_option()

    @property
    def beside(self) -> Plain:
        return Plain(tolerance=TOLERANCE)

    @property
    def classes(self) -> LabelSet | None:
        if self.dataset_json is None:
            return None
        single = {name: values for name, values in self.dataset_json.classes.items() if len(values) == 1}
        return LabelSet(single, reader=self.dataset_json.reader)

    def score(self, pair: CasePair) -> list[Measurement]:
        truth, prediction = (segmentation.array for segmentation in self.read(pair))
        names = {values[0]: name for name, values in self.classes.classes.items()} if self.classes else {}
        result, means, beside = [], [], []
        for label in authors_labels(truth, prediction):
            masks = truth == label, prediction == label
            means.append((dice(*masks), slab_nsd(*masks)))
            rows = (("DSC", means[-1][0], "1"), ("NSD", means[-1][1], "1", _SLAB))
            result += measurements_of(pair.name, names.get(label, str(label)), self.name, rows)
        dsc, nsd = (rounded(np.mean(values)) for values in zip(*means)) if means else (math.nan, math.nan)
        whole = (("DSC", dsc, "1", ROUNDED), ("NSD", nsd, "1", f"{_SLAB}, {ROUNDED}"))
        result += measurements_of(pair.name, WHOLE_IMAGE, self.name, whole)
        for label in sorted((values_in(truth) | values_in(prediction)) - {0}):
            masks = truth == label, prediction == label
            # the tolerance is in pixels, whatever a header says
            beside += self.beside.score_masks(pair.name, names.get(label, str(label)), *masks, (1.0, 1.0), "px")
        for metric, detail in (("Dice", ""), ("IoU", ""), ("NSD", _AT)):
            values = [m.value for m in beside if m.metric == metric]
            mean = float(np.mean(values)) if values else math.nan
            beside += measurements_of(pair.name, WHOLE_IMAGE, PLAIN, [(metric, mean, "1", detail)])
        return result + beside


def authors_labels(truth: np.ndarray, prediction: np.ndarray) -> list[int]:
    """Labels the authors score: those of both images, each without the smallest value that occurs in it."""
    return sorted({*np.unique(truth)[1:].tolist(), *np.unique(prediction)[1:].tolist()})


def slab_nsd(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Surface Dice at 2 px of two 2D masks as volumes one voxel thick (H, W, 1), where all of a mask is surface."""
    return surface_scores(truth[..., None], prediction[..., None], (1.0, 1.0, 1.0), TOLERANCE).nsd
