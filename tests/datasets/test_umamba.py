"""`convert umamba`: the published datasets, verified and repaired."""

import json

import numpy as np
import pytest

from swin_umamba_nnunet.datasets import ConversionError, UMamba, umamba
from tests.datasets.trees import (
    blob,
    photo,
    publish_703_small,
    save,
    snapshot,
    write_umamba_702,
    write_umamba_703,
    write_volume,
)
from tests.messages import assert_names, raises

_small = pytest.fixture(autouse=True)(publish_703_small)


def test_702s_count_is_repaired(tmp_path, convert):
    source, moved = write_umamba_702(tmp_path), "labelsTr/amos_0003.nii.gz"
    write_volume(source / moved, np.ones((2, 4, 5), np.uint8), origin=(0.0, 0.0, 0.0))
    converted = convert(UMamba(), source)
    assert (converted.folder / moved).read_bytes() == (source / moved).read_bytes()
    assert converted.labels[1] == "liver"
    assert converted.labels[13] == "left kidney"
    assert converted.channels == ["MR"]
    assert_names(
        converted.report, "numTraining 60: repaired to 50", "this copy has 50 training cases", "copied as they are"
    )
    assert len(converted.names("imagesTs")) == len(converted.names("labelsTs")) == 50


def test_703_is_copied_byte_for_byte_with_its_instances(tmp_path, convert):
    source = write_umamba_703(tmp_path)
    before = snapshot(source)
    converted = convert(UMamba(), source)
    after = snapshot(converted.folder)
    for name, content in before.items():
        folder, _, file = name.partition("/")
        folder = {"imagesVal": "imagesTs", "labelsVal": "labelsTs", "labelsVal-instance-mask": "instancesTs"}.get(
            folder, folder
        )
        if file:
            assert after[f"{folder}/{file}"] == content
    assert converted.names("instancesTs") == ["cell_00003_label.tiff", "cell_00004_label.tiff"]
    assert snapshot(source) == before
    assert "repaired" not in converted.report


def test_hard_links(tmp_path, convert):
    source = write_umamba_703(tmp_path)
    converted = convert(UMamba(link=True), source)
    assert (converted.folder / "labelsTr/cell_00000.png").samefile(source / "labelsTr/cell_00000.png")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"labels": {"a": [1, 2]}, "numTraining": "x"}', None])
def test_any_dataset_json_is_repaired(tmp_path, convert, content):
    source = write_umamba_703(tmp_path)
    (source / "dataset.json").unlink()
    if content is not None:
        (source / "dataset.json").write_text(content)
    converted = convert(UMamba(), source)
    assert converted.labels == ["background", "interior", "boundary"]
    assert converted.channels == ["R", "G", "B"]


@pytest.mark.parametrize(
    "labels", [{"background": 0, "cell": 1, "edge": 2}, {"0": "background", "1": "cell", "2": "edge"}]
)
def test_good_label_names_are_kept(tmp_path, labels):
    source = write_umamba_703(tmp_path)
    (source / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert [entry.name for entry in UMamba().conversion(source).labels.entries] == ["background", "cell", "edge"]


def test_an_incomplete_download_is_an_error_unless_allowed(tmp_path, inspected, convert):
    source = write_umamba_703(tmp_path)
    for path in (source / "imagesTr/cell_00001_0000.png", source / "labelsTr/cell_00001.png"):
        path.unlink()
    (error,) = inspected(UMamba(), source).errors
    assert "2 training cases; 3 were published" in error.topic
    assert "Google Drive" in error.topic
    assert "not comparable" in convert(UMamba(allow_incomplete=True), source).report


def test_what_is_wrong_with_files_is_named(tmp_path, inspected):
    source = write_umamba_703(tmp_path)
    (source / "labelsTr/cell_00000.png").unlink()
    save(source / "labelsTr/cell_00001.png", blob(7))
    save(source / "imagesTr/cell_00002_0000.png", photo(2)[..., 0])
    (source / "labelsVal-instance-mask/cell_00003_label.tiff").unlink()
    save(source / "labelsVal-instance-mask/cell_00004_label.tiff", np.ones((3, 3), np.uint16))
    errors = {error.case: error for error in inspected(UMamba(), source).errors}
    assert sorted(errors) == [f"cell_0000{i}" for i in range(5)]
    assert "without a mask" in errors["cell_00000"].topic
    assert errors["cell_00001"].detail.startswith("7 (")
    assert "number of channels" in errors["cell_00002"].topic
    assert "instance mask" in errors["cell_00003"].topic
    assert "instance mask differ in size" in errors["cell_00004"].topic


@pytest.mark.parametrize(
    ("name", "number"), [("Dataset702_AbdomenMR", 702), ("neuripscell", 703), ("my_704_copy", 704), ("Endovis17", 704)]
)
def test_which_dataset(tmp_path, name, number):
    assert UMamba()._known(tmp_path / name) is umamba.PUBLISHED[number]


def test_which_dataset_is_not_guessed(tmp_path):
    with raises(ConversionError, "--published"):
        UMamba()._known(tmp_path / "data")
    with raises(ConversionError, "702, 703 and 704"):
        UMamba(published=701)._known(tmp_path)
    (tmp_path / "Dataset703_NeurIPSCell").mkdir()
    with raises(ConversionError, "no imagesTr and labelsTr"):
        UMamba().conversion(tmp_path / "Dataset703_NeurIPSCell")


def test_a_folder_in_a_folder(tmp_path):
    write_umamba_703(tmp_path / "Dataset703_NeurIPSCell")
    assert len(UMamba().conversion(tmp_path / "Dataset703_NeurIPSCell").cases) == 5


def test_instance_masks_that_are_missing_or_twice(tmp_path, reported):
    source = write_umamba_703(tmp_path)
    save(source / "labelsVal-instance-mask/cell_00003.png", blob())
    assert_names(reported(UMamba(), source), "several", "cell_00003.png")
    (source / "labelsVal-instance-mask").rename(source / "elsewhere")
    assert "F1 of the cells cannot be computed" in reported(UMamba(), source)
