"""The endoscopy, cells and ISIC protocols give what the authors' scripts give, and the plain values beside them."""

import math

import numpy as np
import pytest
import tifffile
from skimage import io

from swin_umamba_nnunet.evaluation import ALL_CLASSES, WHOLE_IMAGE, Cells, Endoscopy, Isic, Plain
from swin_umamba_nnunet.evaluation.instances import connected_components
from swin_umamba_nnunet.evaluation.protocols import cells, isic
from tests.evaluation.expected import GOLDEN, ROUNDED, UNROUNDED, assert_cases, assert_means, assert_named, expected
from tests.evaluation.files import evaluated, write_image

EMPTY = "seq2_frame002_empty"


@pytest.fixture(scope="module")
def endoscopy_result():
    return evaluated(GOLDEN / "endoscopy", Endoscopy())


@pytest.mark.parametrize("metric", ["DSC", "NSD"])
def test_endoscopy_authors(endoscopy_result, metric):
    authors = expected()["endoscopy"]["authors"]
    wanted = authors[metric]
    images = {case: {WHOLE_IMAGE: value} for case, value in wanted["per_case"].items()}
    assert set(images) == set(authors["scored_cases"])
    assert_cases(endoscopy_result, images, metric, "endoscopy", ROUNDED)
    assert_cases(endoscopy_result, wanted["per_case_per_label_unrounded"], metric, "endoscopy", UNROUNDED)
    assert_means(endoscopy_result, {WHOLE_IMAGE: wanted["mean"]}, metric, "endoscopy")
    row = endoscopy_result.statistic(metric, WHOLE_IMAGE, "endoscopy")
    assert (row.n_cases, row.n_undefined) == (6, 1)
    assert math.isnan(endoscopy_result.value(EMPTY, WHOLE_IMAGE, metric, "endoscopy"))
    assert any(EMPTY in note and "AssertionError" in note for note in endoscopy_result.notes)


@pytest.mark.parametrize(("metric", "key"), [("Dice", "dice"), ("NSD", "boundary_nsd_2px")])
def test_endoscopy_plain(endoscopy_result, metric, key):
    wanted = expected()["endoscopy"]["plain"][key]
    labels = {case: values or {} for case, values in wanted["per_case_per_label"].items()}
    assert_cases(endoscopy_result, labels, metric, "plain", UNROUNDED)
    images = {case: {WHOLE_IMAGE: value} for case, value in wanted["per_case"].items()}
    assert_cases(endoscopy_result, images, metric, "plain", UNROUNDED)
    means = {WHOLE_IMAGE: wanted["mean_over_images"], **wanted["per_label_mean"]}
    assert_means(endoscopy_result, means, metric)
    scored = [m for m in endoscopy_result.measurements if m.label not in (WHOLE_IMAGE, ALL_CLASSES)]
    assert {(m.case, m.label) for m in scored if m.convention == "plain"} == {
        (case, label) for case, values in labels.items() for label in values
    }


COUNTS = {
    "true_num": "true_num@0.5",
    "pred_num": "pred_num@0.5",
    "correct_num(TP)": "TP@0.5",
    "missed_num(FN)": "FN@0.5",
    "wrong_num(FP)": "FP@0.5",
}
SCORES = {"precision": "Precision@0.5", "recall": "Recall@0.5", "F1": "F1@0.5", "dice": "Dice"}


@pytest.mark.parametrize(
    ("key", "count_border_cells"), [("by_iou_threshold", False), ("by_iou_threshold_with_count_bd_cells_flag", True)]
)
def test_cells_authors(key, count_border_cells):
    protocol = Cells(iou_thresholds=(0.5, 0.75), count_border_cells=count_border_cells)
    result = evaluated(GOLDEN / "cells", protocol)
    for threshold, wanted in expected()["cells"]["authors"][key].items():
        names = {theirs: ours.replace("0.5", threshold) for theirs, ours in (COUNTS | SCORES).items()}
        assert_named(result, wanted["per_case"], names, WHOLE_IMAGE, "cells", ROUNDED)
        assert_means(result, {WHOLE_IMAGE: wanted["mean_F1"]}, f"F1@{threshold}", "cells")
        assert_means(result, {WHOLE_IMAGE: wanted["median_F1"]}, f"F1@{threshold} (median)", "cells")


def test_cells_plain():
    result = evaluated(GOLDEN / "cells", Cells())
    wanted = expected()["cells"]["plain"]
    names = {
        "tp": "TP@0.5",
        "fp": "FP@0.5",
        "fn": "FN@0.5",
        "precision": "Precision@0.5",
        "recall": "Recall@0.5",
        "f1": "F1@0.5",
        "foreground_dice": "Dice",
    }
    assert wanted["iou_threshold"] == 0.5
    assert_named(result, wanted["per_case"], names, cells.CELL)
    assert_means(result, {cells.CELL: wanted["mean_f1_undefined_ignored"]}, "F1@0.5")
    assert_means(result, {cells.CELL: wanted["mean_f1_undefined_as_1"]}, "F1@0.5", as_one=True)
    assert_means(result, {cells.CELL: wanted["pooled"]["f1"]}, "F1@0.5 (pooled)")
    result = evaluated(GOLDEN / "cells", Plain(instances="gt-ids", distances=False))
    assert_named(result, wanted["per_case"], {"f1": "F1@0.5", "foreground_dice": "Dice"}, "object")
    assert_means(result, {"object": wanted["pooled"]["f1"]}, "F1@0.5 (pooled)")


def test_cells_large_image():
    """An image that is scored in tiles."""
    recipe = expected()["cells"]["authors"]["large_image"]
    truth, prediction = np.zeros(recipe["shape"], np.uint16), np.zeros(recipe["shape"], np.uint8)
    for placement in recipe["placements"]:
        ids = tifffile.imread(GOLDEN / f"cells/gt/{placement['image']}_label.tiff")
        classes = io.imread(GOLDEN / f"cells/pred/{placement['image']}.png")
        row, column = placement["row"], placement["col"]
        there = np.s_[row : row + ids.shape[0], column : column + ids.shape[1]]
        new = np.searchsorted(np.unique(ids[ids > 0]), ids) + placement["first_id"]
        truth[there], prediction[there] = np.where(ids > 0, new, 0), classes
    wanted = recipe["result"]
    found = connected_components(prediction == cells.INTERIOR)
    protocol = cells.Cells()
    values = {m.metric: m.value for m in protocol.authors_measurements("large", truth, found, 0.5)}
    for theirs, ours in (COUNTS | SCORES).items():
        assert abs(values[ours] - wanted[theirs]) <= ROUNDED
    with_border = cells.Cells(count_border_cells=True).authors_measurements("large", truth, found, 0.5)
    assert with_border
    assert all(math.isnan(m.value) for m in with_border)
    assert "large" in cells.Cells(count_border_cells=True).notes(with_border)[0]


@pytest.fixture(scope="module", params=[1, 255])
def isic_result(request, tmp_path_factory):
    """From thresholded label images; masks as 0 and 1, and as 0 and 255."""
    folder = tmp_path_factory.mktemp("isic")
    with np.load(GOLDEN / "isic.npz") as arrays:
        for name, key, value in (("pred", "probabilities", 1), ("gt", "masks", request.param)):
            for number, image in enumerate(arrays[key]):
                write_image(folder / name / f"{number}.png", (image >= 0.5).astype(np.uint8) * value)
    return evaluated(folder, Isic(64))


def test_isic_authors(isic_result):
    wanted = expected()["isic"]["authors"]
    for name, count in wanted["confusion"].items():
        assert sum(isic_result.value(pair.name, isic.LESION, name, "isic") for pair in isic_result.cases) == count
    names = {
        "miou": "mIoU",
        "f1_or_dsc": "DSC",
        "accuracy": "Accuracy",
        "specificity": "Specificity",
        "sensitivity": "Sensitivity",
    }
    for theirs, ours in names.items():
        assert_means(isic_result, {isic.LESION: wanted[theirs]}, ours, "isic")


def test_isic_plain(isic_result):
    wanted = expected()["isic"]["plain"]
    images = {str(number): image for number, image in enumerate(wanted["per_image"])}
    names = {"dice": "Dice", "iou": "IoU", **{name: name for name in ("TP", "FP", "FN", "TN")}}
    assert_named(isic_result, images, names, isic.LESION)
    for metric, key in (("Dice", "dice"), ("IoU", "iou")):
        assert_means(isic_result, {isic.LESION: wanted[f"mean_{key}_undefined_ignored"]}, metric)
        assert_means(isic_result, {isic.LESION: wanted[f"mean_{key}_undefined_as_1"]}, metric, as_one=True)
