"""Protocol "synapse": how TransUNet, and VM-UNet after it, score the eight organs of the Synapse volumes."""

import math
from dataclasses import dataclass, replace

import numpy as np

from swin_umamba_nnunet.evaluation.cases import CasePair
from swin_umamba_nnunet.evaluation.labels import mask_of, numbered
from swin_umamba_nnunet.evaluation.protocols.base import option
from swin_umamba_nnunet.evaluation.protocols.plain import PaperProtocol, Plain
from swin_umamba_nnunet.evaluation.readers import Segmentation, read_pair, read_segmentation
from swin_umamba_nnunet.evaluation.records import PLAIN, Convention, Measurement, measurements_of
from swin_umamba_nnunet.evaluation.surfaces import border_voxel_hd95, dice

ORGANS = ("Aorta", "Gallbladder", "Left kidney", "Right kidney", "Liver", "Pancreas", "Spleen", "Stomach")
CLASSES = numbered(ORGANS, "the synapse protocol")

_SCRIPTS = Convention(
    "synapse",
    "The authors' way: MedPy's Dice and HD95 per volume and organ, HD95 in voxels, averaged over volumes and then over "
    "the 8 organs; nothing is rounded.",
    (
        "An organ that is missed scores Dice 0 and HD95 0, the best distance: missing small organs lowers the HD95.",
        "An organ that is predicted but absent scores Dice 1 and HD95 0; absent in both it scores Dice 0 and HD95 0.",
        "HD95 counts voxels along every axis: a thick slice is as long as a pixel, spacing is not looked at.",
        "Border voxels touch the outside by a face; the 95th percentile is that of both directed lists joined.",
        "The authors predict slices at network size and bring the labels back by nearest neighbours with aligned "
        "corner pixels (scipy.ndimage.zoom, order 0).",
    ),
)


@dataclass(frozen=True)
class Synapse(PaperProtocol):
    """The authors' scores with the plain ones beside them.

    Attributes:
        resize_predictions: predictions may have slices of another size, which are brought to that of the ground
            truth as the authors do; otherwise that is an error.
    """

    name = "synapse"
    summary = "TransUNet and VM-UNet, DSC and HD95 of 8 organs"
    dimensions = 3
    authors = _SCRIPTS
    addition = " Here in voxels along every axis, as the authors count, but infinite where an organ is missed."
    odd = (PLAIN, "HD95_medpy", math.isinf)
    note = (
        "Exactly one of ground truth and prediction has the organ at {}: HD95 0 by the authors' way, infinite by the "
        "plain one."
    )
    resize_predictions: bool = option(False, "bring slices to the size of the ground truth as the authors do")

    @property
    def beside(self) -> Plain:
        return Plain(CLASSES, medpy_hd95=True, in_voxels=True)

    def read(self, pair: CasePair) -> tuple[Segmentation, Segmentation]:
        if not self.resize_predictions:
            return read_pair(pair)
        truth, prediction = read_segmentation(pair.ground_truth), read_segmentation(pair.prediction)
        if truth.array.ndim == 3 and prediction.array.ndim == 3 and len(truth.array) == len(prediction.array):
            slices = to_slice_size(prediction.array, truth.array.shape[1:])
            return truth, replace(prediction, array=slices, spacing=truth.spacing)
        return read_pair(pair)  # says what differs

    def score(self, pair: CasePair) -> list[Measurement]:
        truth, prediction = self.read(pair)
        result = []
        for organ, values in CLASSES.classes.items():
            overlap, hd95 = authors_scores(mask_of(truth.array, values), mask_of(prediction.array, values))
            rows = (("Dice", overlap, "1"), ("HD95", hd95, "voxel", "border voxels"))
            result += measurements_of(pair.name, organ, self.name, rows)
        return result + self.beside.score_labels(pair.name, truth, prediction)


def authors_scores(truth: np.ndarray, prediction: np.ndarray) -> tuple[float, float]:
    """Dice and HD95 (voxels) of two masks of one shape, empty cases as the authors have them."""
    if prediction.any() and truth.any():
        return dice(truth, prediction), border_voxel_hd95(truth, prediction)
    return (1.0, 0.0) if prediction.any() else (0.0, 0.0)


def to_slice_size(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Label slices (D, h, w) at the size (H, W) by nearest neighbours with aligned corner pixels."""
    from scipy import ndimage

    if labels.shape[1:] == tuple(size):
        return labels
    factors = [wanted / found for wanted, found in zip(size, labels.shape[1:])]
    return np.stack([ndimage.zoom(plane, factors, order=0) for plane in labels])
