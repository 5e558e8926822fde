"""Datasets appear complete or not at all, and an old one survives until the new one is complete."""

import pytest

from swin_umamba_nnunet.datasets import ConversionError, Images
from swin_umamba_nnunet.datasets._write import (
    Verdict,
    check_integrity,
    check_target,
    judge,
    write_dataset,
)
from tests.datasets.trees import write_images
from tests.messages import raises

NAME = "Dataset001_Test"


@pytest.fixture
def inspection(tmp_path, inspected):
    return inspected(Images(), write_images(tmp_path / "source"))


def test_what_nnunet_does_not_accept_is_not_put_in_place(tmp_path, inspection):
    def refuse(folder, processes):
        assert (folder / "dataset.json").is_file()
        return Verdict(False, "label 7 is unexpected")

    with raises(ConversionError, "label 7 is unexpected"):
        write_dataset(inspection, tmp_path / "raw" / NAME, check=refuse)
    assert list((tmp_path / "raw").iterdir()) == []

    def taken(folder, processes):
        (tmp_path / "raw/Dataset001_Other").mkdir()
        return Verdict(True, "")

    with raises(ConversionError, "already has Dataset001_Other"):
        write_dataset(inspection, tmp_path / "raw" / NAME, check=taken)


@pytest.mark.parametrize(
    ("taken", "message"),
    [
        ("raw/Dataset001_Other/", "already has Dataset001_Other"),
        ("preprocessed/Dataset001_Other/", "already has Dataset001_Other"),
        (f"raw/{NAME}/dataset.json", "--overwrite"),
        (f"raw/{NAME}", "a link or a file"),
    ],
)
def test_places_that_are_taken(tmp_path, monkeypatch, taken, message):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    path = tmp_path / taken
    path.parent.mkdir(parents=True)
    if taken.endswith("/"):
        path.mkdir()
    else:
        path.write_text("")
    with pytest.raises(ConversionError, match=message):
        check_target(tmp_path / "raw" / NAME, tmp_path, overwrite=False)


def test_overwrite_does_not_delete_what_is_no_dataset(tmp_path):
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "thesis.tex").write_text("")
    with raises(ConversionError, "no dataset.json"):
        check_target(tmp_path / NAME, tmp_path / "source", overwrite=True)


def test_the_source_is_never_the_target(tmp_path):
    inside = tmp_path / NAME / "images"
    inside.mkdir(parents=True)
    (tmp_path / NAME / "dataset.json").write_text("")
    for source in (inside, tmp_path / NAME):
        with raises(ConversionError, "move the source elsewhere"):
            check_target(tmp_path / NAME, source, overwrite=True)


def test_verdicts():
    assert judge(0, "...\nverify_dataset_integrity Done. \n", "").passed
    assert not judge(0, "", "").passed
    assert judge(1, "Error: Unexpected labels\n", "Traceback\nRuntimeError: wrong").summary == (
        "Error: Unexpected labels RuntimeError: wrong"
    )
    for said, cuda in {"torch sees a GPU: True": True, "torch sees a GPU: False": False, "": None}.items():
        assert judge(0, f"verify_dataset_integrity Done. \n{said}\n", "").cuda is cuda
    assert judge(0, "WARNING: a\nWARNING: a\nverify_dataset_integrity Done", "").warnings == ("WARNING: a",)


@pytest.mark.slow
def test_nnunets_check_in_its_own_process(tmp_path, inspection, monkeypatch, warm_python):
    verdict = write_dataset(inspection, tmp_path / "raw" / "Dataset001_Täst folder", threads=1)
    assert verdict.passed
    (tmp_path / "raw" / "Dataset001_Täst folder" / "labelsTr" / "img0.png").unlink()
    monkeypatch.setattr("sys.executable", warm_python)  # from nothing once is enough
    assert not check_integrity(tmp_path / "raw" / "Dataset001_Täst folder", 1).passed
