"""The plain metrics beyond the golden files: values known from geometry, and agreement with nnU-Net."""

import json
import math

import numpy as np
import pytest
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from swin_umamba_nnunet.evaluation import Plain
from swin_umamba_nnunet.evaluation.surfaces import surface_scores
from tests.evaluation.files import evaluated, write_volume


def test_shifted_rectangle():
    """A rectangle moved along one axis: every contour element of its two ends is that far away, the sides are not."""
    truth = np.zeros((40, 60), bool)
    truth[10:20, 10:40] = True
    prediction = np.roll(truth, 4, axis=0)
    found = surface_scores(truth, prediction, (0.5, 2.0), tolerance=1.9)
    assert found.hd95 == 2.0  # 4 rows of 0.5 mm
    assert 0 < found.assd < 2.0
    assert found.nsd < 0.5
    assert surface_scores(truth, prediction, (0.5, 2.0), tolerance=2.0).nsd == 1.0


def test_iou_and_mean_distance_of_empty_masks():
    """The other metrics of such masks are in the golden files."""
    full, empty = np.ones((4, 5, 6), bool), np.zeros((4, 5, 6), bool)
    for pair, values in (
        ((empty, empty), (math.nan, math.nan)),
        ((empty, full), (0, math.inf)),
        ((full, empty), (0, math.inf)),
    ):
        rows = Plain().score_masks("case", "label", *pair, (1, 1, 1), "mm")
        found = {row.metric: row.value for row in rows}
        assert (found["IoU"], found["ASSD"]) == pytest.approx(values, nan_ok=True)


def test_agrees_with_nnunet_on_regions_and_ignore_label(tmp_path):
    generator = np.random.default_rng(3)
    truth = generator.choice(5, (6, 9, 8), p=(0.4, 0.2, 0.15, 0.15, 0.1)).astype(np.uint8)
    prediction = generator.integers(0, 4, truth.shape, dtype=np.uint8)
    files = write_volume(tmp_path / "gt/a.nii.gz", truth), write_volume(tmp_path / "pred/a.nii.gz", prediction)
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "regions_class_order": [1, 2, 3]}))
    result = evaluated(tmp_path)
    regions = [(1, 2, 3), (2, 3), 3]
    wanted = compute_metrics(str(files[0]), str(files[1]), SimpleITKIO(), regions, ignore_label=4)["metrics"]
    for name, region in zip(("whole", "core", "enhancing"), regions):
        for metric in ("Dice", "IoU", "TP", "FP", "FN", "TN"):
            assert result.value("a", name, metric) == pytest.approx(float(wanted[region][metric]), rel=1e-12)
    assert any("ignore label 4" in note for note in result.notes)
