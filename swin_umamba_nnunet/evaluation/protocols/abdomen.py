"""Protocol "abdomen": the DSC and NSD scripts of Swin-UMamba and U-Mamba for the AMOS-style 13 abdominal organs."""

import math
from dataclasses import dataclass

import numpy as np

from swin_umamba_nnunet.evaluation.cases import CasePair
from swin_umamba_nnunet.evaluation.labels import mask_of, numbered
from swin_umamba_nnunet.evaluation.protocols.base import ROUNDED, option, rounded
from swin_umamba_nnunet.evaluation.protocols.plain import PaperProtocol, Plain
from swin_umamba_nnunet.evaluation.readers import Segmentation
from swin_umamba_nnunet.evaluation.records import Convention, Measurement, measurements_of
from swin_umamba_nnunet.evaluation.surfaces import dice, surface_scores

TOLERANCES = {
    "Liver": 5,
    "RK": 3,
    "Spleen": 3,
    "Pancreas": 5,
    "Aorta": 2,
    "IVC": 2,
    "RAG": 2,
    "LAG": 2,
    "Gallbladder": 2,
    "Esophagus": 3,
    "Stomach": 5,
    "Duodenum": 7,
    "LK": 3,
}  # mm, in the order of the labels 1 to 13
CROPPED = ("Aorta", "IVC", "Esophagus")  # tubes, scored only where the ground truth has them
CLASSES = numbered(TOLERANCES, "the abdomen protocol")

_SCRIPTS = Convention(
    "abdomen",
    "The authors' scripts: per case and organ DSC and surface Dice (NSD, organ-specific tolerance in mm, distance <= "
    "tolerance counts), rounded to 4 decimals, averaged over cases per organ, then over the 13 organs.",
    (
        "Aorta, IVC and esophagus are scored only on the slices from the lowest up to but without the topmost that the "
        "ground truth labels (off by one); whatever is predicted elsewhere costs nothing.",
        "One of these organs on a single ground-truth slice is undefined and left out of the organ's mean (the "
        "authors' NSD script stops there with ValueError; here the value is undefined, as in their DSC script).",
        "The planes where such an organ is cut off count as surface in the NSD.",
        "An organ absent in ground truth and prediction scores 1 and lifts the mean; predicted but absent it scores 0.",
        "Every value is rounded (numpy rounding, half to even) before the means are taken.",
        "Spacing is the float32 value of the ground truth's header, so a shift of exactly the tolerance can lie above "
        "it; the prediction's header is not used, and no reorientation takes place.",
        "The authors' loop runs over the predictions, so a missing prediction drops out of their means unnoticed; here "
        "it is an error unless you allow it.",
    ),
)


@dataclass(frozen=True)
class Abdomen(PaperProtocol):
    """The authors' scores with the plain ones beside them.

    Attributes:
        medpy_hd95: MedPy's HD95 among the plain values too.
    """

    name = "abdomen"
    summary = "Swin-UMamba and U-Mamba, DSC and NSD of 13 abdominal organs"
    dimensions = 3
    authors = _SCRIPTS
    odd = (name, "NSD", math.isnan)
    note = (
        "The authors' NSD script stops with ValueError at {} (one ground-truth slice); the value is undefined here and "
        "left out of the organ's mean, as their DSC script does."
    )
    medpy_hd95: bool = option(False, "MedPy's HD95 among the plain values too")

    @property
    def beside(self) -> Plain:
        return Plain(CLASSES, tolerance=TOLERANCES, medpy_hd95=self.medpy_hd95)

    def score(self, pair: CasePair) -> list[Measurement]:
        truth, prediction = self.read(pair)
        result = []
        for organ, tolerance in TOLERANCES.items():
            dsc, nsd = authors_scores(organ, truth, prediction)
            rows = (
                ("DSC", rounded(dsc), "1", ROUNDED),
                ("NSD", rounded(nsd), "1", f"tolerance {tolerance} mm, {ROUNDED}"),
            )
            result += measurements_of(pair.name, organ, self.name, rows)
        return result + self.beside.score_labels(pair.name, truth, prediction)


def authors_scores(organ: str, truth: Segmentation, prediction: Segmentation) -> tuple[float, float]:
    """DSC and NSD of one organ before rounding; NaN where the crop is empty.

    Args:
        organ: one of `TOLERANCES`.
        truth, prediction: label volumes (D, H, W).
    """
    # x, y, z as the scripts have it: areas are summed in the same order, so that not even the last bit differs
    values = CLASSES.classes[organ]
    truth_mask, prediction_mask = (mask_of(one.array, values).transpose(2, 1, 0) for one in (truth, prediction))
    if not truth_mask.any():
        score = 0.0 if prediction_mask.any() else 1.0
        return score, score
    if organ in CROPPED:
        (slices,) = np.nonzero(truth_mask.any(axis=(0, 1)))
        crop = np.s_[:, :, slices[0] : slices[-1]]  # without the topmost slice
        truth_mask, prediction_mask = truth_mask[crop], prediction_mask[crop]
        if not truth_mask.size:
            return math.nan, math.nan
    nsd = surface_scores(truth_mask, prediction_mask, truth.spacing[::-1], TOLERANCES[organ]).nsd
    return dice(truth_mask, prediction_mask), nsd
