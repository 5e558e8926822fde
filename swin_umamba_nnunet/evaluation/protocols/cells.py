"""Protocol "cells": the F1 script of Swin-UMamba and U-Mamba (NeurIPS 2022 cell segmentation challenge)."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from swin_umamba_nnunet.evaluation.cases import CasePair
from swin_umamba_nnunet.evaluation.instances import (
    connected_components,
    count_objects,
    match_objects,
    without_border_objects,
)
from swin_umamba_nnunet.evaluation.labels import LabelSet
from swin_umamba_nnunet.evaluation.protocols.base import ROUNDED, CaseFacts, iou_option, option, rounded
from swin_umamba_nnunet.evaluation.protocols.plain import INTERIOR, PaperProtocol, Plain
from swin_umamba_nnunet.evaluation.records import (
    PLAIN,
    WHOLE_IMAGE,
    Convention,
    EvaluationError,
    Measurement,
    Statistic,
    by_name,
    measurements_of,
)
from swin_umamba_nnunet.evaluation.statistics import Bootstrap, class_statistics, median_statistic, pooled_object_f1
from swin_umamba_nnunet.evaluation.surfaces import dice

BORDER = 2  # px
LARGE_IMAGE = 25_000_000  # px; images of this size and more are scored in tiles
TILE = 2000  # px
CELL = "cell"

_DEFINITION = (
    "The authors' script: predicted cells are the components (diagonal contact joins) of class 1, the insides; cells "
    "are matched one to one where IoU >= the threshold; per image precision, recall, F1 and foreground Dice, rounded "
    "to 4 decimals; mean and median of F1 over images."
)
_QUIRKS = (
    "An image without a match has F1 0 and stays in the mean, even if neither side has a cell.",
    "Without a predicted cell FN is counted as 0, although every cell is missed; recall is TP / all cells, so F1 does "
    "not suffer.",
    "The boundary class is dropped and not grown back, so a perfect network loses the rim of each cell; there is no "
    "smallest size, a single pixel is a cell.",
    "A ground-truth id in two pieces is one cell.",
    "Foreground Dice is that of all cells against class 1, border cells included; both empty gives 1.",
    "Images of 25,000,000 pixels and more are padded to multiples of 2000 and scored in tiles of 2000 x 2000, counts "
    "summed.",
    "Values are rounded per image before mean and median.",
)
_BORDER_QUIRKS = {
    False: (
        "Cells with a pixel in the outer 2 rows or columns are removed, from ground truth and prediction "
        "independently: a border cell whose prediction stays clear of the border becomes a false positive.",
        "In tiled images border cells of every tile are removed, so a cell across a tile's edge is lost on both "
        "sides; padding keeps cells at the right and bottom border of the image where the size is no multiple of 2000.",
    ),
    True: (
        "Cells at the border count. The authors' script fails on tiled images with this setting and leaves them out; "
        "they are undefined here.",
    ),
}


class TileCounts(NamedTuple):
    """Summed counts of an image as the authors print them (`fn` is 0 in tiles without a prediction)."""

    n_true: int
    n_predicted: int
    tp: int
    fp: int
    fn: int


@dataclass(frozen=True)
class Cells(PaperProtocol):
    """The authors' scores with the plain ones beside them.

    Attributes:
        iou_thresholds: at which pairs match.
        count_border_cells: the script's flag `count_bd_cells`.
    """

    name = "cells"
    summary = "Swin-UMamba and U-Mamba, F1 of cells (ground truth: instance ids)"
    dimensions = 2
    odd = (name, "F1", math.isnan)
    note = (
        "The authors' script fails on images of 25,000,000 pixels and more when border cells count ({}); they are "
        "undefined here and left out of the means."
    )
    iou_thresholds: Sequence[float] = iou_option((0.5,), "IoU thresholds at which cells match (default: 0.5)")
    count_border_cells: bool = option(False, "keep cells at the border (the script's count_bd_cells)")

    @property
    def beside(self) -> Plain:
        return Plain(instances="gt-ids", distances=False, iou_thresholds=self.iou_thresholds)

    @property
    def classes(self) -> LabelSet:
        return LabelSet({CELL: (INTERIOR,)})

    @property
    def ground_truth_suffix(self) -> str:
        return self.beside.ground_truth_suffix

    @property
    def conventions(self) -> tuple[Convention, ...]:
        own = Convention(self.name, _DEFINITION, _QUIRKS + _BORDER_QUIRKS[self.count_border_cells])
        return (own, *self.beside.conventions)

    def check_values(self, pair: CasePair, facts: CaseFacts) -> None:
        if max(facts.prediction_values) > 2:
            raise EvaluationError(
                f"case {pair.name}: the prediction {pair.prediction} has label {max(facts.prediction_values)}; "
                "expected the classes 0 background, 1 inside of cells, 2 boundary. For predicted instance ids use "
                "--protocol plain --instances ids"
            )

    def score(self, pair: CasePair) -> list[Measurement]:
        truth, prediction = (segmentation.array for segmentation in self.read(pair))
        interior = prediction == INTERIOR
        predicted = connected_components(interior)
        result = []
        for threshold in self.iou_thresholds:
            result += self.authors_measurements(pair.name, truth, predicted, threshold)
        result += self.beside.score_masks(pair.name, CELL, truth > 0, interior, (1.0, 1.0), "px")
        return result + self.beside.score_objects(pair.name, CELL, truth, predicted)

    def authors_measurements(
        self, case: str, truth: np.ndarray, predicted: np.ndarray, threshold: float
    ) -> list[Measurement]:
        """What the authors' script prints for one image of ids (H, W), and the counts behind it."""
        counts = authors_counts(truth, predicted, threshold, self.count_border_cells)
        at, detail = f"@{threshold:g}", f"IoU >= {threshold:g}"
        if counts is None:
            rows = [(f"{name}{at}", math.nan, "1", detail) for name in ("F1", "Precision", "Recall")]
            return measurements_of(case, WHOLE_IMAGE, self.name, rows)
        precision = counts.tp / counts.n_predicted if counts.tp else 0.0
        recall = counts.tp / counts.n_true if counts.tp else 0.0
        f1 = 2 * precision * recall / (precision + recall) if counts.tp else 0.0
        scores = [("F1", f1), ("Precision", precision), ("Recall", recall)]
        rows = [(f"{name}{at}", rounded(value), "1", f"{detail}, {ROUNDED}") for name, value in scores]
        if threshold == self.iou_thresholds[0]:
            rows.append(("Dice", rounded(dice(truth > 0, predicted > 0, empty=1.0)), "1", ROUNDED))
        names = ("true_num", "pred_num", "TP", "FP", "FN")
        numbers = [(f"{name}{at}", value, "count", detail, True) for name, value in zip(names, counts)]
        return measurements_of(case, WHOLE_IMAGE, self.name, [*rows, *numbers])

    def statistics(self, measurements: Sequence[Measurement], bootstrap: Bootstrap) -> list[Statistic]:
        result, found = class_statistics(measurements, bootstrap), by_name(measurements)
        for threshold in self.iou_thresholds:
            own = found[self.name, f"F1@{threshold:g}", WHOLE_IMAGE]
            result.append(median_statistic(own[0], [m.value for m in own], bootstrap))
        return result + pooled_object_f1([m for m in measurements if m.convention == PLAIN], bootstrap)


def authors_counts(
    truth: np.ndarray, predicted: np.ndarray, threshold: float, count_border_cells: bool = False
) -> TileCounts | None:
    """Counts as the authors' script makes them; None where it fails.

    Args:
        truth, predicted: ids (H, W).
        threshold: IoU at which cells match.
        count_border_cells: keep cells at the border.
    """
    pairs: Iterable[tuple[np.ndarray, np.ndarray]] = [(truth, predicted)]
    if truth.size >= LARGE_IMAGE:
        if count_border_cells:
            return None
        pairs = zip(_tiles(truth), _tiles(predicted))
    parts = []
    for pair in pairs:
        a, b = pair if count_border_cells else (without_border_objects(ids, BORDER) for ids in pair)
        n_predicted = count_objects(b)
        counts = match_objects(a, b, threshold) if n_predicted else (0, 0, 0)
        parts.append((count_objects(a), n_predicted, *counts))
    return TileCounts(*map(sum, zip(*parts)))


def _tiles(ids: np.ndarray) -> Iterator[np.ndarray]:
    """Tiles of the image padded with background at the bottom and right; the pieces themselves are made one by one."""
    for top in range(0, ids.shape[0], TILE):
        for left in range(0, ids.shape[1], TILE):
            piece = ids[top : top + TILE, left : left + TILE]
            yield np.pad(piece, [(0, TILE - size) for size in piece.shape])
