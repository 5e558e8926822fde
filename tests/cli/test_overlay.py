"""`swin-umamba overlay` on small folders of every kind, and on broken ones."""

import nibabel
import numpy as np
import pytest

from swin_umamba_nnunet.cli import overlay as verb
from swin_umamba_nnunet.pictures import overlay as drawing
from tests.evaluation.files import write_image
from tests.jsons import dump
from tests.messages import assert_names

LABELS = {"background": 0, "lesion": 1, "vessel": 2}


def squares(shape=(30, 40)):
    labels = np.zeros(shape, np.uint8)
    labels[..., 4:20, 5:15] = 1
    labels[..., 10:22, 20:30] = 2
    return labels


@pytest.fixture
def pictures(tmp_path):
    """Three RGB images with label files; the predictions are shifted by 0, 1 and 2 pixels."""
    rng = np.random.default_rng(0)
    for i in range(3):
        write_image(tmp_path / f"images/case_{i}_0000.png", rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        write_image(tmp_path / f"truth/case_{i}.png", squares())
        write_image(tmp_path / f"pred/case_{i}.png", np.roll(squares(), i, axis=1))
    dump(tmp_path / "pred/dataset.json", {"labels": LABELS})
    return tmp_path


@pytest.fixture
def volumes(tmp_path):
    """A volume of two channels stored in RAS, anisotropic."""
    for name in ("images", "truth", "pred"):
        (tmp_path / name).mkdir()
    affine = np.diag((1.0, 1.0, 4.0, 1.0))
    rng = np.random.default_rng(0)
    for channel in range(2):
        values = rng.normal(size=(40, 30, 6)) if channel == 0 else np.full((40, 30, 6), 5.0)
        nibabel.Nifti1Image(values, affine).to_filename(tmp_path / f"images/vol_{channel:04d}.nii.gz")
    truth = np.moveaxis(squares((6, 30, 40)), (0, 1, 2), (2, 1, 0))
    prediction = truth.copy()
    prediction[..., 4] = 0
    prediction[10:, :, 3] = 0
    nibabel.Nifti1Image(truth, affine).to_filename(tmp_path / "truth/vol.nii.gz")
    nibabel.Nifti1Image(prediction, affine).to_filename(tmp_path / "pred/vol.nii.gz")
    return tmp_path


@pytest.fixture
def drawn(monkeypatch):
    """What would have been drawn: looks and classes."""
    seen = []
    monkeypatch.setattr(drawing, "draw_case", lambda look, classes, path: seen.append((look, dict(classes))))
    return seen


@pytest.fixture
def overlay(told):
    """A function (exit code, folder, options="") -> what the verb said."""
    folders = "overlay -i {0}/images -gt {0}/truth -pred {0}/pred"
    return lambda code, folder, options="": told(code, *folders.format(folder).split(), *options.split())


@pytest.fixture
def refused(overlay):
    """A function (folder, options="") -> the sentence on stderr."""
    return lambda *arguments: overlay(2, *arguments).err.splitlines()[-1]


def written(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_picture_per_case(pictures, overlay):
    (pictures / "images/case_1_0000.png").rename(pictures / "images/case_1.png")  # without the channel in its name
    # one pixel of 10 in both classes; 2 of 10
    assert_names(overlay(0, pictures).out, "3 pictures", "case_2 0.800, case_1 0.900, case_0 1.000")
    assert written(pictures / "pred_overlay") == ["case_0.png", "case_1.png", "case_2.png"]


@pytest.mark.parametrize("given", ["pred", "pred/", "../{name}/pred/.", "."])
def test_the_pictures_lie_beside_the_predictions_and_not_in_them(pictures, told, monkeypatch, given):
    """However the folder is named: it holds what nnU-Net wrote."""
    before = written(pictures / "pred")
    where = pictures / "pred" if given == "." else pictures
    monkeypatch.chdir(where)
    command = f"overlay -i {pictures}/images -gt {pictures}/truth --cases case_0 -pred {given}"
    told(0, *command.format(name=pictures.name).split())
    assert written(pictures / "pred_overlay") == ["case_0.png"]
    assert written(pictures / "pred") == before


def test_the_names_come_from_the_dataset_json_beside_the_predictions(pictures, drawn, overlay):
    overlay(0, pictures, "--cases case_1")
    ((look, classes),) = drawn
    assert classes == {"lesion": (1,), "vessel": (2,)}
    assert look.dice == {"lesion": 0.9, "vessel": 0.9}


def test_without_a_dataset_json_every_label_found_is_a_class(pictures, drawn, overlay):
    (pictures / "pred/dataset.json").unlink()
    said = overlay(0, pictures, "--cases case_0").out
    assert_names(said, "dataset.json", "--dataset", "--labels", "every label")
    assert drawn[0][1] == {"1": (1,), "2": (2,)}


def test_a_sheet_in_pages(pictures, overlay, monkeypatch):
    monkeypatch.setattr(verb, "_ROWS_PER_SHEET", 2)
    (pictures / "pred_overlay").mkdir()
    (pictures / "pred_overlay/sheet_03.png").touch()  # of more cases
    overlay(0, pictures, "--sheet")
    assert written(pictures / "pred_overlay") == ["sheet_01.png", "sheet_02.png"]


def test_the_slices_of_a_volume(volumes, drawn, overlay):
    overlay(0, volumes, "--labels lesion=1 vessel=2")
    view, worst = drawn[0][0].views
    assert worst.caption[:2] == ("worst slice", "axial slice 5 of 6")
    assert view.aspect == 1.0
    assert view.truth[29 - 4, 39 - 5] == 1  # stored in RAS: the first voxel is at the left, back and bottom
    overlay(0, volumes, "--labels lesion=1 --plane sagittal --slices worst --channel 1")
    (view,) = drawn[1][0].views
    assert view.caption[0] == "worst slice"
    assert view.aspect == 4.0
    assert len(np.unique(view.image)) == 1


def test_a_channel_that_is_not_there(volumes, refused):
    message = refused(volumes, "--labels 1 --channel 2")
    assert_names(message, volumes / "images/vol_0000.nii.gz", "channel 2", "0 to 1")
    assert_names(refused(volumes, "--labels 1 --channel -1"), "--channel -1", "0 or more")


def test_a_missing_image(pictures, refused):
    (pictures / "images/case_1_0000.png").unlink()
    assert_names(refused(pictures), pictures / "images", "case_1_0000", ".png")
    assert not (pictures / "pred_overlay").exists()


def test_files_that_do_not_fit(pictures, refused):
    image, prediction = pictures / "images/case_0_0000.png", pictures / "pred/case_0.png"
    write_image(image, np.zeros((31, 40, 3), np.uint8))
    assert_names(refused(pictures), image, "(1, 31, 40)", "(1, 30, 40)")
    image.write_bytes(b"no image")
    assert_names(refused(pictures), image, "damaged")
    write_image(prediction, squares() * 3)
    assert_names(refused(pictures), prediction, "label 3", pictures / "pred/dataset.json", "0 to 2")


def test_a_reader_that_reorients_shows_the_same(volumes, drawn, overlay):
    for reader in ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient", "SimpleITKIOWithReorient"):
        content = {"labels": LABELS, "overwrite_image_reader_writer": reader}
        dump(volumes / "pred/dataset.json", content)
        overlay(0, volumes)
    shown = [look.views[0] for look, _ in drawn]
    for view in shown[1:]:
        np.testing.assert_array_equal(view.truth, shown[0].truth)
        np.testing.assert_allclose(view.image, shown[0].image, atol=1e-5)


def test_a_missing_prediction(pictures, overlay, refused):
    (pictures / "pred/case_1.png").unlink()
    assert "case_1" in refused(pictures)
    overlay(0, pictures, "--allow-missing")
    assert written(pictures / "pred_overlay") == ["case_0.png", "case_2.png"]


def test_an_unknown_case_gets_the_nearest_name(pictures, refused):
    message = refused(pictures, "--cases case_11")
    assert_names(message, "--cases", " case_11 ", " case_1?", pictures / "truth", pictures / "pred")


def test_an_output_that_is_a_file_or_holds_what_is_drawn(pictures, refused):
    (pictures / "out").touch()
    assert_names(refused(pictures, f"-o {pictures}/out"), pictures / "out", "File exists", "with -o")
    before = [path.read_bytes() for path in sorted(pictures.glob("*/*"))]
    for name in ("images", "truth", "pred"):
        assert_names(refused(pictures, f"-o {pictures}/pred/../{name}"), name, "replace", "with -o")
    assert [path.read_bytes() for path in sorted(pictures.glob("*/*"))] == before
