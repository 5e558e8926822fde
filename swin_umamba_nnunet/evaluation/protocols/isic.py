"""Protocol "isic": how VM-UNet scores skin lesions, one confusion matrix over the pixels of all images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from swin_umamba_nnunet.evaluation.cases import CasePair
from swin_umamba_nnunet.evaluation.labels import LabelSet
from swin_umamba_nnunet.evaluation.protocols.base import CaseFacts, option
from swin_umamba_nnunet.evaluation.protocols.plain import COUNTS, PaperProtocol, Plain
from swin_umamba_nnunet.evaluation.records import (
    PLAIN,
    Convention,
    EvaluationError,
    Measurement,
    Statistic,
    by_name,
    measurements_of,
)
from swin_umamba_nnunet.evaluation.statistics import Bootstrap, class_statistics, pooled_statistic

THRESHOLD = 0.5
SIZE = 256  # px, at which the authors score
LESION = "lesion"
MAXIMUM = 255  # of masks stored as 0 and 255
_POOLED = "pixels of all images together"

# metric -> sums of counts in the numerator and in the denominator
_RATIOS = {
    "mIoU": ("TP", "TP FP FN"),
    "DSC": ("TP TP", "TP TP FP FN"),
    "Accuracy": ("TP TN", "TP TN FP FN"),
    "Sensitivity": ("TP", "TP FN"),
    "Specificity": ("TN", "TN FP"),
}


@dataclass(frozen=True)
class Isic(PaperProtocol):
    """The authors' pooled scores, with the plain ones per image beside them.

    Attributes:
        isic_size: side in pixels to which ground truth and prediction are resized (bilinear, then threshold 0.5)
            before anything is counted; 0 scores the files as they are.
    """

    name = "isic"
    summary = "VM-UNet, pooled mIoU and DSC of skin lesions"
    dimensions = 2
    isic_size: int = option(
        SIZE,
        f"side to which masks and predictions are resized before scoring (default: {SIZE}; 0: not at all)",
        type=int,
        metavar="PIXELS",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.isic_size < 0:
            raise EvaluationError(f"--isic-size {self.isic_size}: expected pixels, 1 or more, or 0 for the files' own")

    @property
    def beside(self) -> Plain:
        return Plain(LabelSet({LESION: (1,)}), distances=False)

    @property
    def conventions(self) -> tuple[Convention, ...]:
        side = self.isic_size
        size = f"resized to {side} x {side} (bilinear)" if side else "at the files' own size"
        definition = (
            f"The authors' way: all pixels of all images, {size}, in one confusion matrix, foreground from 0.5 on; "
            "mIoU = TP/(TP+FP+FN), DSC = 2TP/(2TP+FP+FN), accuracy, sensitivity and specificity of that matrix."
        )
        quirks = (
            '"mIoU" is the IoU of the lesion alone, no mean over classes or images, and DSC = 2 IoU / (1 + IoU).',
            "Large lesions dominate; images without a lesion matter only through their false positives.",
            "A mask value of exactly 0.5 after resizing is foreground.",
            "Ratios without a denominator are 0; without any foreground the authors' code stops with IndexError.",
            "The authors resize images before the network, and so predict at 256 x 256; predictions at another size "
            "are resized here like the masks.",
        )
        beside = (
            f"Dice and IoU per image, {size}, averaged over images; an image without lesion in ground truth and "
            "prediction is undefined, left out of the mean and counted."
        )
        return (Convention(self.name, definition, quirks), Convention(PLAIN, beside))

    def check_values(self, pair: CasePair, facts: CaseFacts) -> None:
        for path, found in ((pair.ground_truth, facts.truth_values), (pair.prediction, facts.prediction_values)):
            if max(found) > 1 and not found <= {0, MAXIMUM}:
                raise EvaluationError(
                    f"case {pair.name}: {path} has the value {min(found - {0, 1})}; expected masks of 0 and 1, or of "
                    "0 and 255"
                )

    def score(self, pair: CasePair) -> list[Measurement]:
        truth, prediction = (_foreground(one.array, self.isic_size) for one in self.read(pair))
        beside = self.beside.score_masks(pair.name, LESION, truth, prediction, (1.0, 1.0), "px")
        return [replace(m, convention=self.name) for m in beside if m.count] + beside

    def statistics(self, measurements: Sequence[Measurement], bootstrap: Bootstrap) -> list[Statistic]:
        found = by_name(measurements)
        counts = {name: np.array([m.value for m in found[self.name, name, LESION]]) for name in COUNTS}
        result = []
        for head in measurements_of("", LESION, self.name, [(metric, 0.0, "1") for metric in _RATIOS]):
            top, bottom = (np.sum([counts[name] for name in names.split()], axis=0) for names in _RATIOS[head.metric])
            result.append(pooled_statistic(head, top, bottom, bootstrap, _POOLED, empty=0.0))
        return result + class_statistics(measurements, bootstrap)

    def notes(self, measurements: Sequence[Measurement]) -> tuple[str, ...]:
        foreground = ("TP", "FP", "FN")
        if any(m.value for m in measurements if m.convention == self.name and m.metric in foreground):
            return ()
        return ("No image has foreground in ground truth or prediction: the authors' code stops with IndexError here.",)


def _foreground(labels: np.ndarray, size: int) -> np.ndarray:
    """Mask (size, size), or (H, W) where the size is 0, of a label image with values 0 and 1, or 0 and 255."""
    from scipy import ndimage

    mask = (labels > 0).astype(np.float32)
    if not size or mask.shape == (size, size):
        return mask >= THRESHOLD
    # pixel centres aligned and the edge repeated, as PyTorch's bilinear interpolation without antialiasing does
    factors = [size / side for side in mask.shape]
    return ndimage.zoom(mask, factors, order=1, mode="nearest", grid_mode=True) >= THRESHOLD
