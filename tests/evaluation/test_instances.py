"""Matching of objects, against the Hungarian method and by hand."""

import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from swin_umamba_nnunet.evaluation import EvaluationError, Plain
from swin_umamba_nnunet.evaluation.instances import (
    Counts,
    connected_components,
    count_objects,
    match_objects,
)
from tests.evaluation.files import evaluated, write_image
from tests.messages import raises


def random_ids(seed, shape=(40, 40), n=25):
    generator = np.random.default_rng(seed)
    ids = np.zeros(shape, np.int64)
    for value in generator.choice(np.arange(1, 500), n, replace=False):
        row, column = generator.integers(0, 36, 2)
        ids[row : row + generator.integers(2, 8), column : column + generator.integers(2, 8)] = value
    return ids


def hungarian(truth, prediction, threshold):
    """Number of pairs, from the dense IoU matrix."""
    rows, columns = np.unique(truth[truth > 0]), np.unique(prediction[prediction > 0])
    iou = np.array(
        [
            [((truth == a) & (prediction == b)).sum() / ((truth == a) | (prediction == b)).sum() for b in columns]
            for a in rows
        ]
    )
    good = iou >= threshold
    picked = linear_sum_assignment(-good.astype(float) - iou / (2 * min(iou.shape)))
    return int(good[picked].sum()), len(rows), len(columns)


@pytest.mark.parametrize("threshold", [0.05, 0.2, 0.5, 0.75])
@pytest.mark.parametrize("seed", range(4))
def test_matching_is_hungarian(seed, threshold):
    truth = random_ids(seed)
    prediction = np.roll(truth, (1, 1), (0, 1)) if seed % 2 else random_ids(seed + 100)
    tp, n_truth, n_prediction = hungarian(truth, prediction, threshold)
    assert match_objects(truth, prediction, threshold) == Counts(tp, n_prediction - tp, n_truth - tp)


def test_edges():
    ids, nothing, full = random_ids(0), np.zeros((40, 40), int), np.full((4, 4), 5)
    n = count_objects(ids)
    assert match_objects(ids, nothing, 0.5) == Counts(0, 0, n)
    assert match_objects(nothing, ids, 0.5) == Counts(0, n, 0)
    assert math.isnan(match_objects(nothing, nothing, 0.5).f1)
    assert match_objects(full, full * 10**6, 0.5) == Counts(1, 0, 0)  # without background
    truth, prediction = np.zeros((2, 4), int), np.zeros((2, 4), int)
    truth[0], prediction[0, :2] = 1, 1  # IoU 0.5: the threshold is inclusive
    assert [match_objects(truth, prediction, at).tp for at in (0.5, 0.51)] == [1, 0]
    assert count_objects(connected_components(np.eye(5, dtype=bool))) == 1  # diagonal contact joins


def test_objects_by_ids_and_by_components_of_each_class(tmp_path):
    """Two objects, of which one is found whole and a third of the other."""
    truth, prediction = np.zeros((2, 12, 12), np.uint8)
    truth[1:4, 1:4], truth[6:9, 6:9] = 1, 2
    prediction[1:4, 1:4], prediction[6:7, 6:9] = 3, 4
    write_image(tmp_path / "gt/a.png", truth)
    write_image(tmp_path / "pred/a.png", prediction)
    result = evaluated(tmp_path, Plain(instances="ids", iou_thresholds=(0.3, 0.5)))
    assert result.value("a", "object", "F1@0.3") == 1.0
    assert result.value("a", "object", "F1@0.5") == 0.5
    assert result.value("a", "object", "Dice") == 2 * 12 / 30
    assert "one object" in result.conventions[0].definition
    result = evaluated((tmp_path / "gt", tmp_path / "gt"), Plain(iou_thresholds=(0.5,)))
    assert [result.value("a", label, "F1@0.5") for label in "12"] == [1.0, 1.0]
    assert "connected components of each class" in result.conventions[0].definition


@pytest.mark.parametrize("threshold", [0, -1, 1.1])
def test_thresholds_out_of_range(threshold):
    with raises(EvaluationError, "--iou ", "above 0 ", "1, such as 0.5"):
        Plain(iou_thresholds=(threshold,))
