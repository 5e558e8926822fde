"""Protocol "abdomen": the DSC and NSD scripts of Swin-UMamba and U-Mamba for the AMOS-style 13 abdominal organs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from swin_umamba_nnunet.evaluation import plain
from swin_umamba_nnunet.evaluation.cases import CasePair, Segmentation
from swin_umamba_nnunet.evaluation.labels import LabelSet
from swin_umamba_nnunet.evaluation.protocols.base import CaseFacts, EvaluationProtocol, require_volume
from swin_umamba_nnunet.evaluation.records import Convention, Measurement
from swin_umamba_nnunet.evaluation.surfaces import surface_dice

ORGANS = (
    "Liver", "RK", "Spleen", "Pancreas", "Aorta", "IVC", "RAG", "LAG", "Gallbladder", "Esophagus", "Stomach",
    "Duodenum", "LK",
)  # fmt: skip
LABELS = {organ: value for value, organ in enumerate(ORGANS, 1)}
TOLERANCES = dict(zip(ORGANS, (5, 3, 3, 5, 2, 2, 2, 2, 2, 3, 5, 7, 3)))  # mm
CROPPED = ("Aorta", "IVC", "Esophagus")  # tubes, scored only where the ground truth has them
DECIMALS = 4

_AUTHORS = Convention(
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
class Abdomen(EvaluationProtocol):
    """The authors' scores with the plain ones beside them.

    Attributes:
        medpy_hd95: MedPy's HD95 among the plain values too.
    """

    name: ClassVar[str] = "abdomen"
    medpy_hd95: bool = False

    @property
    def conventions(self) -> tuple[Convention, ...]:
        return (_AUTHORS, plain.convention(self._plain))

    @property
    def summary_keys(self) -> dict[str, str]:
        return {organ: str(value) for organ, value in LABELS.items()}

    @property
    def _plain(self) -> plain.PlainSettings:
        return plain.PlainSettings(tolerances=TOLERANCES, medpy_hd95=self.medpy_hd95)

    def check_values(self, pair: CasePair, facts: CaseFacts) -> None:
        require_volume(pair, facts, len(ORGANS), self.name)

    def score(self, pair: CasePair) -> list[Measurement]:
        truth, prediction = self.read(pair)
        result = []
        for organ in ORGANS:
            dsc, nsd = authors_scores(organ, truth, prediction)
            detail = "rounded to 4 decimals"
            result += [
                Measurement(pair.name, organ, "DSC", _rounded(dsc), "1", self.name, detail),
                Measurement(
                    pair.name, organ, "NSD", _rounded(nsd), "1", self.name,
                    f"tolerance {TOLERANCES[organ]} mm, {detail}",
                ),
            ]  # fmt: skip
        labels = LabelSet({organ: (value,) for organ, value in LABELS.items()})
        return result + plain.score_labels(
            pair.name, truth.array, prediction.array, truth.spacing, truth.unit, labels, self._plain
        )

    def notes(self, measurements: Sequence[Measurement]) -> tuple[str, ...]:
        undefined = [
            f"{measurement.case}/{measurement.label}"
            for measurement in measurements
            if measurement.convention == self.name and measurement.metric == "NSD" and math.isnan(measurement.value)
        ]
        if not undefined:
            return ()
        return (
            f"The authors' NSD script stops with ValueError at {', '.join(undefined)} (one ground-truth slice); the "
            "value is undefined here and left out of the organ's mean, as their DSC script does.",
        )


def authors_scores(organ: str, truth: Segmentation, prediction: Segmentation) -> tuple[float, float]:
    """DSC and NSD of one organ before rounding; NaN where the crop is empty.

    Args:
        organ: one of `ORGANS`.
        truth, prediction: label volumes (D, H, W).
    """
    # x, y, z as the scripts have it: areas are summed in the same order, so that not even the last bit differs
    truth_mask = (truth.array == LABELS[organ]).transpose(2, 1, 0)
    prediction_mask = (prediction.array == LABELS[organ]).transpose(2, 1, 0)
    if not truth_mask.any():
        score = 0.0 if prediction_mask.any() else 1.0
        return score, score
    if organ in CROPPED:
        (slices,) = np.nonzero(truth_mask.any(axis=(0, 1)))
        crop = np.s_[:, :, slices[0] : slices[-1]]  # without the topmost slice
        truth_mask, prediction_mask = truth_mask[crop], prediction_mask[crop]
        if not truth_mask.size:
            return math.nan, math.nan
    total = int(truth_mask.sum()) + int(prediction_mask.sum())
    dsc = 2 * int((truth_mask & prediction_mask).sum()) / total if total else math.nan
    return dsc, surface_dice(truth_mask, prediction_mask, truth.spacing[::-1], TOLERANCES[organ])


def _rounded(value: float) -> float:
    return float(np.round(value, DECIMALS))
