"""`convert isic`: VM-UNet's tree and the archive's own folders."""

import pytest
from numpy.testing import assert_array_equal

from swin_umamba_nnunet.datasets import ConversionError, Isic, isic
from tests.datasets.trees import blob, photo, save, write_case, write_isic
from tests.messages import raises


def test_vm_unets_split_is_fold_0(tmp_path, convert):
    converted = convert(Isic(), write_isic(tmp_path / "s"))
    assert converted.labels == ["background", "lesion"]
    (fold,) = converted.splits
    assert fold == {"train": [f"ISIC_000000{i}" for i in range(3)], "val": ["ISIC_0000003", "ISIC_0000004"]}
    assert_array_equal(converted.read("imagesTr/ISIC_0000001_0000.png"), photo(1))
    assert_array_equal(converted.read("labelsTr/ISIC_0000001.png"), blob(1))


def test_or_as_test_set(tmp_path, convert):
    converted = convert(Isic(val_as="test"), write_isic(tmp_path / "s"))
    assert converted.names("labelsTs") == ["ISIC_0000003.png", "ISIC_0000004.png"]
    assert converted.splits is None


@pytest.mark.parametrize(
    ("images", "masks", "other_task", "test"),
    [
        ("ISIC-2017_{}_Data", "ISIC-2017_{}_Part1_GroundTruth", "ISIC-2017_{}_Part2_GroundTruth", "Test_v2"),
        (  # the first unpacked into a folder of its own name
            "ISIC2018_Task1-2_{0}_Input/ISIC2018_Task1-2_{0}_Input",
            "ISIC2018_Task1_{}_GroundTruth",
            "ISIC2018_Task2_{}_GroundTruth_v3",
            "Test",
        ),
    ],
)
def test_the_archives_own_folders(tmp_path, inspected, images, masks, other_task, test):
    for index, word in enumerate(("Training", "Validation", test)):
        name = f"ISIC_{index:07d}"
        for file in (f"{name}.jpg", f"{name}_superpixels.png"):
            save(tmp_path / images.format(word) / file, photo(index))
        save(tmp_path / masks.format(word) / f"{name}_segmentation.png", blob())
        (tmp_path / other_task.format(word)).mkdir()
    inspection = inspected(Isic(), tmp_path)
    assert not inspection.errors
    assert [case.part for case in inspection.cases] == ["train", "val", "test"]
    training = masks.format("Training")
    (tmp_path / images.format("Training").partition("/")[0]).rename(tmp_path / "Training_Data (1)")
    with raises(ConversionError, training):
        Isic().conversion(tmp_path)
    (tmp_path / training).rename(tmp_path / "elsewhere")
    assert "no training case" in str(inspected(Isic(), tmp_path).errors)


def test_two_years_at_once_are_refused(tmp_path):
    for folder in ("ISIC-2017_Training_Data", "ISIC2018_Task1-2_Training_Input"):
        (tmp_path / folder).mkdir()
    with raises(ConversionError, "one year's at a time"):
        Isic().conversion(tmp_path)


@pytest.mark.parametrize(("published", "severity"), [({(3, 2): "ISIC17"}, "note"), (isic.PUBLISHED, "warning")])
def test_the_published_split_is_recognised(tmp_path, monkeypatch, published, severity):
    monkeypatch.setattr(isic, "PUBLISHED", published)
    (finding,) = Isic().conversion(write_isic(tmp_path)).findings
    assert finding.severity == severity
    assert "VM-UNet's" in finding.topic


def test_one_name_in_train_and_val(tmp_path, inspected):
    write_case(write_isic(tmp_path) / "val", "ISIC_0000002", 2, "_segmentation")
    assert {error.case for error in inspected(Isic(), tmp_path).errors} == {"ISIC_0000002"}


@pytest.mark.parametrize("folders", [(), ("train/images", "train/masks"), ("photos",)])
def test_folders_without_images(tmp_path, folders):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ConversionError, match=str(tmp_path)):
        Isic().conversion(tmp_path)
