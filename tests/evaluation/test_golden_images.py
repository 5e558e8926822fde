"""The endoscopy, cells and ISIC protocols give what the authors' scripts give, and the plain values beside them."""

import math

import numpy as np
import pytest
import tifffile
from skimage import io

from swin_umamba_nnunet.evaluation import ALL_CLASSES, WHOLE_IMAGE, Cells, Endoscopy, Isic, Plain, evaluate_folders
from swin_umamba_nnunet.evaluation.instances import connected_components
from swin_umamba_nnunet.evaluation.protocols import cells, endoscopy, isic
from tests.evaluation.expected import GOLDEN, ROUNDED, UNROUNDED, assert_cases, expected, same

EMPTY = "seq2_frame002_empty"


@pytest.fixture(scope="module")
def endoscopy_result():
    folder = GOLDEN / "endoscopy"
    return evaluate_folders(folder / "gt", folder / "pred", protocol=Endoscopy(), processes=1, resamples=10)


@pytest.mark.parametrize("metric", ["DSC", "NSD"])
def test_endoscopy_authors(endoscopy_result, metric):
    authors = expected()["endoscopy"]["authors"]
    wanted = authors[metric]
    images = {case: {WHOLE_IMAGE: value} for case, value in wanted["per_case"].items()}
    assert set(images) == set(authors["scored_cases"])
    assert_cases(endoscopy_result, images, metric, "endoscopy", ROUNDED)
    assert_cases(endoscopy_result, wanted["per_case_per_label_unrounded"], metric, "endoscopy", UNROUNDED)
    row = endoscopy_result.statistic(metric, WHOLE_IMAGE, "endoscopy")
    assert abs(row.mean - wanted["mean"]) <= UNROUNDED
    assert (row.n_cases, row.n_undefined) == (6, 1)
    assert math.isnan(endoscopy_result.value(EMPTY, WHOLE_IMAGE, metric, "endoscopy"))


def test_endoscopy_labels():
    wanted = expected()["endoscopy"]["authors"]["NSD"]["labels"]
    for case, labels in wanted.items():
        truth, prediction = (io.imread(GOLDEN / "endoscopy" / side / f"{case}.png") for side in ("gt", "pred"))
        assert endoscopy.authors_labels(truth, prediction) == labels["union"]


def test_endoscopy_says_where_the_authors_script_stops(endoscopy_result):
    assert any(EMPTY in note and "AssertionError" in note for note in endoscopy_result.notes)


@pytest.mark.parametrize(("metric", "key"), [("Dice", "dice"), ("NSD", "boundary_nsd_2px")])
def test_endoscopy_plain(endoscopy_result, metric, key):
    wanted = expected()["endoscopy"]["plain"][key]
    labels = {case: values or {} for case, values in wanted["per_case_per_label"].items()}
    assert_cases(endoscopy_result, labels, metric, "plain", UNROUNDED)
    images = {case: {WHOLE_IMAGE: value} for case, value in wanted["per_case"].items()}
    assert_cases(endoscopy_result, images, metric, "plain", UNROUNDED)
    assert abs(endoscopy_result.statistic(metric, WHOLE_IMAGE).mean - wanted["mean_over_images"]) <= UNROUNDED
    for label, value in wanted["per_label_mean"].items():
        assert same(endoscopy_result.statistic(metric, label).mean, value, UNROUNDED)
    scored = [m for m in endoscopy_result.measurements if m.label not in (WHOLE_IMAGE, ALL_CLASSES)]
    assert {(m.case, m.label) for m in scored if m.convention == "plain"} == {
        (case, label) for case, values in labels.items() for label in values
    }


def cells_result(**options):
    folder = GOLDEN / "cells"
    return evaluate_folders(folder / "gt", folder / "pred", protocol=Cells(**options), processes=1, resamples=10)


COUNTS = {"true_num": "true_num", "pred_num": "pred_num", "correct_num(TP)": "TP", "missed_num(FN)": "FN",
          "wrong_num(FP)": "FP"}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "count_border_cells"), [("by_iou_threshold", False), ("by_iou_threshold_with_count_bd_cells_flag", True)]
)
def test_cells_authors(key, count_border_cells):
    result = cells_result(iou_thresholds=(0.5, 0.75), count_border_cells=count_border_cells)
    for threshold, wanted in expected()["cells"]["authors"][key].items():
        names = {**COUNTS, "precision": "Precision", "recall": "Recall", "F1": "F1"}
        for case, values in wanted["per_case"].items():
            for theirs, ours in names.items():
                found = result.value(case, WHOLE_IMAGE, f"{ours}@{threshold}", "cells")
                assert same(found, values[theirs], ROUNDED), (case, theirs, threshold)
            assert same(result.value(case, WHOLE_IMAGE, "Dice", "cells"), values["dice"], ROUNDED)
        mean = result.statistic(f"F1@{threshold}", WHOLE_IMAGE, "cells")
        median = result.statistic(f"F1@{threshold} (median)", WHOLE_IMAGE, "cells")
        assert abs(mean.mean - wanted["mean_F1"]) <= UNROUNDED
        assert abs(median.mean - wanted["median_F1"]) <= UNROUNDED


def test_cells_plain():
    result = cells_result()
    wanted = expected()["cells"]["plain"]
    threshold = wanted["iou_threshold"]
    names = {"tp": "TP@0.5", "fp": "FP@0.5", "fn": "FN@0.5", "precision": "Precision@0.5", "recall": "Recall@0.5",
             "f1": "F1@0.5", "foreground_dice": "Dice"}  # fmt: skip
    assert threshold == 0.5
    for case, values in wanted["per_case"].items():
        for theirs, ours in names.items():
            found = result.value(case, cells.CELL, ours)
            assert same(found, values[theirs], UNROUNDED), (case, theirs)
    row = result.statistic("F1@0.5", cells.CELL)
    assert abs(row.mean - wanted["mean_f1_undefined_ignored"]) <= UNROUNDED
    assert abs(row.mean_undefined_as_1 - wanted["mean_f1_undefined_as_1"]) <= UNROUNDED
    pooled = result.statistic("F1@0.5 (pooled)", cells.CELL)
    assert abs(pooled.mean - wanted["pooled"]["f1"]) <= UNROUNDED


def test_plain_protocol_counts_the_same_cells():
    folder = GOLDEN / "cells"
    result = evaluate_folders(
        folder / "gt", folder / "pred", protocol=Plain(instances="gt-ids", distances=False), processes=1, resamples=10
    )
    wanted = expected()["cells"]["plain"]
    for case, values in wanted["per_case"].items():
        assert same(result.value(case, "object", "F1@0.5"), values["f1"], UNROUNDED)
        assert same(result.value(case, "object", "Dice"), values["foreground_dice"], UNROUNDED)
    assert abs(result.statistic("F1@0.5 (pooled)", "object").mean - wanted["pooled"]["f1"]) <= UNROUNDED


@pytest.fixture(scope="module")
def large_image():
    """Ground truth ids and classes of the image that is scored in tiles."""
    recipe = expected()["cells"]["authors"]["large_image"]
    truth, prediction = np.zeros(recipe["shape"], np.uint16), np.zeros(recipe["shape"], np.uint8)
    for placement in recipe["placements"]:
        ids = tifffile.imread(GOLDEN / f"cells/gt/{placement['image']}_label.tiff")
        classes = io.imread(GOLDEN / f"cells/pred/{placement['image']}.png")
        there = np.s_[placement["row"] : placement["row"] + ids.shape[0],
                      placement["col"] : placement["col"] + ids.shape[1]]  # fmt: skip
        new = np.searchsorted(np.unique(ids[ids > 0]), ids) + placement["first_id"]
        truth[there], prediction[there] = np.where(ids > 0, new, 0), classes
    return truth, prediction


def test_cells_large_image(large_image):
    truth, prediction = large_image
    wanted = expected()["cells"]["authors"]["large_image"]["result"]
    found = connected_components(prediction == cells.INTERIOR)
    protocol = cells.Cells()
    values = {m.metric: m.value for m in protocol.authors_measurements("large", truth, found, 0.5)}
    for theirs, ours in COUNTS.items():
        assert values[f"{ours}@0.5"] == wanted[theirs]
    for theirs, ours in {"precision": "Precision@0.5", "recall": "Recall@0.5", "dice": "Dice", "F1": "F1@0.5"}.items():
        assert abs(values[ours] - wanted[theirs]) <= ROUNDED
    with_border = cells.Cells(count_border_cells=True).authors_measurements("large", truth, found, 0.5)
    assert with_border
    assert all(math.isnan(m.value) for m in with_border)
    assert "large" in cells.Cells(count_border_cells=True).notes(with_border)[0]


@pytest.fixture(scope="module")
def isic_arrays():
    with np.load(GOLDEN / "isic.npz") as file:
        return file["probabilities"], file["masks"]


@pytest.fixture(scope="module", params=[1, 255])
def isic_result(request, tmp_path_factory, isic_arrays):
    """From thresholded label images; masks as 0 and 1, and as 0 and 255."""
    folder = tmp_path_factory.mktemp("isic")
    for name, images in zip(("pred", "gt"), isic_arrays):
        (folder / name).mkdir()
        for number, image in enumerate(images):
            labels = (image >= 0.5).astype(np.uint8) * (request.param if name == "gt" else 1)
            io.imsave(folder / name / f"{number}.png", labels, check_contrast=False)
    return evaluate_folders(folder / "gt", folder / "pred", protocol=Isic(64), processes=1, resamples=10)


def test_isic_confusion(isic_result):
    for name, count in expected()["isic"]["authors"]["confusion"].items():
        assert sum(isic_result.value(pair.name, isic.LESION, name, "isic") for pair in isic_result.cases) == count


def test_isic_authors(isic_result):
    wanted = expected()["isic"]["authors"]
    names = {"miou": "mIoU", "f1_or_dsc": "DSC", "accuracy": "Accuracy", "specificity": "Specificity",
             "sensitivity": "Sensitivity"}  # fmt: skip
    for theirs, ours in names.items():
        assert abs(isic_result.statistic(ours, isic.LESION, "isic").mean - wanted[theirs]) <= UNROUNDED


def test_isic_plain(isic_result):
    wanted = expected()["isic"]["plain"]
    for number, image in enumerate(wanted["per_image"]):
        for theirs, ours in {"dice": "Dice", "iou": "IoU", "TP": "TP", "FP": "FP", "FN": "FN", "TN": "TN"}.items():
            assert same(isic_result.value(str(number), isic.LESION, ours), image[theirs], UNROUNDED)
    for metric, key in (("Dice", "dice"), ("IoU", "iou")):
        row = isic_result.statistic(metric, isic.LESION)
        assert abs(row.mean - wanted[f"mean_{key}_undefined_ignored"]) <= UNROUNDED
        as_one = row.mean_undefined_as_1 if row.n_undefined else row.mean
        assert abs(as_one - wanted[f"mean_{key}_undefined_as_1"]) <= UNROUNDED
