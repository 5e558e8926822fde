"""The plain metrics: values known from geometry, and agreement with nnU-Net; the golden files hold MedPy's."""

import json
import math

import numpy as np
import pytest
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from swin_umamba_nnunet.evaluation import Plain
from swin_umamba_nnunet.evaluation.surfaces import border_voxel_hd95, surface_scores
from tests.evaluation.files import evaluated, write_volume

SPACING = (2.0, 1.0, 0.7)


def scores(truth, prediction, spacing=SPACING, tolerance=1.0):
    spacing = spacing[: truth.ndim]
    rows = Plain(tolerance=tolerance, medpy_hd95=True).score_masks("case", "label", truth, prediction, spacing, "mm")
    return {row.metric: row.value for row in rows}


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


def test_an_image_is_scored_by_its_contour():
    """Were it taken for a slab one voxel thick, the inside of the square would be surface, and agree."""
    truth, prediction = np.zeros((2, 100, 100), bool)
    truth[10:80, 10:80] = True
    prediction[20:70, 20:70] = True
    assert surface_scores(truth, prediction, (1, 1), 2).nsd == 0.0
    assert surface_scores(truth[None], prediction[None], (1, 1, 1), 2).nsd > 0.5


def test_empty_masks():
    full, empty = np.ones((4, 5, 6), bool), np.zeros((4, 5, 6), bool)
    both = scores(empty, empty)
    ratios, distances = ("Dice", "IoU", "NSD"), ("HD95", "ASSD", "HD95_medpy")
    assert all(math.isnan(both[name]) for name in (*ratios, *distances))
    assert both["TN"] == empty.size
    for one in ((empty, full), (full, empty)):
        found = scores(*one)
        assert all(found[name] == 0 for name in ratios)
        assert all(math.isinf(found[name]) for name in distances)


def test_one_voxel():
    voxel = np.zeros((5, 5, 5), bool)
    voxel[2, 2, 2] = True
    found = scores(voxel, np.roll(voxel, 1, 0), (3.0, 1.0, 1.0), tolerance=3.0)
    assert (found["Dice"], found["NSD"], found["HD95_medpy"]) == (0.0, 1.0, 3.0)
    assert border_voxel_hd95(voxel, np.roll(voxel, 1, 0)) == 1.0  # voxels


def test_unit_and_tolerance_are_said():
    mask, protocol = np.eye(9, dtype=bool), Plain(tolerance=["1.5", "liver=5"])
    for label, tolerance in (("liver", "5"), ("spleen", "1.5")):
        rows = {row.metric: row for row in protocol.score_masks("case", label, mask, mask, (1.0, 1.0), "px")}
        said = [(rows[name].unit, rows[name].full_convention) for name in ("NSD", "HD95", "TP")]
        assert said == [("1", f"plain: tolerance {tolerance} px"), ("px", "plain"), ("px", "plain")]


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
