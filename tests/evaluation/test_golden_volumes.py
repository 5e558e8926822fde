"""The abdomen and Synapse protocols give what the authors' scripts give, and the plain values beside them."""

import math
import shutil

import numpy as np
import pytest

from swin_umamba_nnunet.evaluation import (
    ALL_CLASSES,
    Abdomen,
    Synapse,
)
from swin_umamba_nnunet.evaluation.protocols import synapse
from tests.evaluation.expected import GOLDEN, ROUNDED, UNROUNDED, assert_cases, assert_distances, assert_means, expected
from tests.evaluation.files import evaluated, refused, write_volume


@pytest.fixture(scope="module")
def abdomen_result():
    return evaluated(GOLDEN / "abdomen", Abdomen(medpy_hd95=True))


@pytest.mark.parametrize("metric", ["DSC", "NSD"])
def test_abdomen_authors(abdomen_result, metric):
    wanted = expected()["abdomen"]["authors"][metric]
    wanted = wanted.get("guarded_on_all_cases", wanted)
    assert_cases(abdomen_result, wanted["per_case"], metric, "abdomen", ROUNDED)
    means = {ALL_CLASSES: wanted["mean"], **wanted["per_organ_mean"]}
    assert_means(abdomen_result, means, metric, "abdomen")


def test_abdomen_says_where_the_authors_script_crashes(abdomen_result):
    (failing,) = expected()["abdomen"]["authors"]["NSD"]["guarded_on_all_cases"]["failing_entries"]
    assert any(f"{failing['case']}/{failing['organ']}" in note for note in abdomen_result.notes)
    row = abdomen_result.statistic("NSD", failing["organ"], "abdomen")
    assert row.n_undefined == 1


def test_abdomen_without_a_prediction(tmp_path):
    shutil.copytree(GOLDEN / "abdomen/pred", tmp_path / "pred")
    (tmp_path / "pred/amos_0605.nii.gz").unlink()
    folders = GOLDEN / "abdomen/gt", tmp_path / "pred"
    with refused("1 case ", "pred: amos_0605", "--allow-missing"):
        evaluated(folders, Abdomen())
    result = evaluated(folders, Abdomen(), allow_missing=True)
    assert any("amos_0605" in note for note in result.notes)
    authors = expected()["abdomen"]["authors"]
    nsd = authors["NSD"]["script_without_the_failing_case"]
    for metric, wanted in {"DSC": authors["DSC_without_the_failing_case"], "NSD": nsd}.items():
        assert_means(result, {ALL_CLASSES: wanted["mean"], **wanted["per_organ_mean"]}, metric, "abdomen")


@pytest.mark.parametrize(("metric", "key"), [("Dice", "dice"), ("NSD", "nsd")])
def test_abdomen_plain_scores(abdomen_result, metric, key):
    wanted = expected()["abdomen"]["plain"][key]
    assert_cases(abdomen_result, wanted["per_case"], metric, "plain", UNROUNDED)
    for way in ("undefined_ignored", "undefined_as_1"):
        means = {ALL_CLASSES: wanted[f"mean_{way}"], **wanted[f"per_organ_mean_{way}"]}
        assert_means(abdomen_result, means, metric, as_one=way == "undefined_as_1")


@pytest.mark.parametrize(("metric", "key"), [("HD95", "hd95_mm_surface_distance"), ("HD95_medpy", "hd95_mm_medpy")])
def test_abdomen_plain_distances(abdomen_result, metric, key):
    wanted = expected()["abdomen"]["plain"][key]
    assert_distances(abdomen_result, wanted, metric, "mm")
    assert_means(abdomen_result, {ALL_CLASSES: wanted["mean_of_finite"], **wanted["per_organ_mean_of_finite"]}, metric)


@pytest.fixture(scope="module", params=["pred", "pred_net"])
def synapse_result(request, tmp_path_factory):
    """From predictions at slice size, and from those at network size."""
    folder = tmp_path_factory.mktemp("synapse")
    with np.load(GOLDEN / "synapse.npz") as arrays:
        for key in ("label", request.param):
            for name in arrays["case_names"]:  # the authors do not look at their spacing
                write_volume(folder / key / f"{name}.nii.gz", arrays[f"{name}_{key}"])
    folders = folder / "label", folder / request.param
    if request.param == "pred_net":
        with refused("2 of 2 cases"):
            evaluated(folders, Synapse())
    return evaluated(folders, Synapse(resize_predictions=request.param == "pred_net"))


def test_synapse_authors(synapse_result):
    wanted = expected()["synapse"]["authors"]
    for key, metric in (("dice", "Dice"), ("hd95", "HD95")):
        per_case = {c: {organ: v[key] for organ, v in organs.items()} for c, organs in wanted["per_case"].items()}
        assert_cases(synapse_result, per_case, metric, "synapse", UNROUNDED)
        means = {organ: values[key] for organ, values in wanted["per_organ_mean"].items()}
        assert_means(synapse_result, {ALL_CLASSES: wanted[f"mean_{key}"], **means}, metric, "synapse")
        for case, values in wanted["per_case_mean"].items():
            found = np.mean([synapse_result.value(case, organ, metric, "synapse") for organ in synapse.ORGANS])
            assert abs(found - values[key]) <= UNROUNDED


def test_synapse_plain(synapse_result):
    wanted = expected()["synapse"]["plain"]
    dice, distance = wanted["dice"], wanted["hd95_voxel"]
    assert_cases(synapse_result, dice["per_case"], "Dice", "plain", UNROUNDED)
    means = {ALL_CLASSES: dice["mean_undefined_ignored"], **dice["per_organ_mean_undefined_ignored"]}
    assert_means(synapse_result, means, "Dice")
    assert_means(synapse_result, {ALL_CLASSES: dice["mean_undefined_as_1"]}, "Dice", as_one=True)
    assert_distances(synapse_result, distance, "HD95_medpy", "voxel")
    means = {ALL_CLASSES: distance["mean_of_finite"], **distance["per_organ_mean_of_finite"]}
    assert_means(synapse_result, means, "HD95_medpy")


def test_synapse_names_the_organs_it_flatters(synapse_result):
    missed = [
        f"{case}/{organ}"
        for case, organs in expected()["synapse"]["plain"]["hd95_voxel"]["per_case"].items()
        for organ, value in organs.items()
        if value is not None and math.isinf(value)
    ]
    assert missed
    assert all(any(name in note for note in synapse_result.notes) for name in missed)
