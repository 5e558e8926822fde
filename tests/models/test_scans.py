"""Images as people have them get the masks that nnU-Net's own predictor gives the same images in its format."""

import functools

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from PIL import Image
from skimage import io

from swin_umamba_nnunet import cli
from swin_umamba_nnunet.models import predicting
from swin_umamba_nnunet.models.checkpoints import ModelError
from swin_umamba_nnunet.models.predicting import IncompleteError
from tests.datasets.trees import photo, save, write_dicom
from tests.jsons import dump, edit, load
from tests.messages import assert_names, raises

BOT = "nnUNetTrainerUMambaBot"
predict = functools.partial(predicting.predict, device="cpu")


def change(file, **changes):
    """Other entries in a JSON file."""
    edit(file, lambda content: content.update(changes))


@pytest.fixture
def model(trained):
    """A function (channels=, reader=, ending=, names=) -> folder of a small random model for files of that kind."""

    def make(channels=1, reader="SimpleITKIO", ending=".nii.gz", names=()):
        _, folder = trained(BOT, channels, inference_allowed_mirroring_axes=None)
        change(folder / "plans.json", image_reader_writer=reader)
        change(folder / "dataset.json", file_ending=ending)
        if names:
            change(folder / "dataset.json", channel_names={str(i): name for i, name in enumerate(names)})
        return folder

    return make


@pytest.fixture
def nnunet(tmp_path):
    """A function (model, *files of a case): the mask file that nnU-Net's own predictor writes."""

    def predict_as_nnunet(folder, *files):
        (tmp_path / "nnunet").mkdir(exist_ok=True)
        predictor = nnUNetPredictor(perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), (0,))
        predictor.predict_from_files_sequential([list(map(str, files))], [str(tmp_path / "nnunet" / "case")])
        return tmp_path / "nnunet" / f"case{predictor.dataset_json['file_ending']}"

    return predict_as_nnunet


def volume(seed=0, shape=(2, 24, 40), turned=True):
    """Noise and a bright box; oblique, and stored from left to right and from back to front."""
    array = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    array[:, 5:15, 12:30] += 3
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.75, 1.25, 3.0))
    image.SetOrigin((10.5, -20.25, 30.125))
    if turned:
        cosine, sine = np.cos(0.2), np.sin(0.2)
        image.SetDirection((-cosine, -sine, 0, -sine, cosine, 0, 0, 0, -1))
    return image


def write(path, image=None):
    """The image, or else some volume, under that name; folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(volume() if image is None else image, str(path))
    return path


def read(path):
    return io.imread(path) if path.suffix == ".png" else sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def assert_drawn_again(picture, folder, images):
    """A picture of a mask that is there already is that of its prediction."""
    before = picture.read_bytes()
    picture.unlink()
    predict(folder, images, picture.parents[1], overwrite=False, overlay=True)
    assert picture.read_bytes() == before


def assert_same_place(path, image):
    mask = sitk.ReadImage(str(path))
    assert mask.GetSize() == image.GetSize()
    for name in ("Spacing", "Origin", "Direction"):
        np.testing.assert_allclose(getattr(mask, f"Get{name}")(), getattr(image, f"Get{name}")(), atol=1e-6)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIOWithReorient", "SimpleITKIOWithReorient"])
def test_volumes_of_any_format_under_any_name(reader, model, nnunet, tmp_path):
    folder, image = model(reader=reader), volume()
    names = ("Scan 1.v2.nii.gz", "b.nii", "c.NRRD", "amos_0601.mha", "e.mhd") if reader == "SimpleITKIO" else ("b.nii",)
    for name in names:
        write(tmp_path / "in" / name.lower(), image).rename(tmp_path / "in" / name)
    expected = nnunet(folder, write(tmp_path / "case_0000.nii.gz", image))
    assert len(np.unique(read(expected))) > 1
    masks = predict(folder, tmp_path / "in", tmp_path / "out", overlay=reader == "NibabelIOWithReorient")
    wanted = {"Scan 1.v2.nii.gz", "b.nii", "c.nrrd", "amos_0601.mha", "e.nii.gz"}
    assert {mask.name for mask in masks} == (wanted if reader == "SimpleITKIO" else {"b.nii"})
    for mask in masks:
        np.testing.assert_array_equal(read(mask), read(expected))
        assert_same_place(mask, image)
    for picture in [*(tmp_path / "out").glob("overlay/*")]:
        assert_drawn_again(picture, folder, tmp_path / "in")
    record = load(tmp_path / "out/prediction.json")
    assert record["labels"] == {"0": "background", "1": "a", "2": "b", "3": "c"}
    assert record["checkpoints"] == [str((folder / "fold_0/checkpoint_final.pth").resolve())]


def test_pictures_become_what_the_model_was_trained_on(model, nnunet, tmp_path):
    colours = photo(1, 31, 39)
    luma = np.rint(colours @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)
    grey = save(tmp_path / "grey_0000.png", luma)
    threefold = save(tmp_path / "rgb_0000.png", np.repeat(luma[..., None], 3, axis=2))
    save(tmp_path / "in/a.png", luma)
    save(tmp_path / "in/IMG_0007.png", np.dstack([colours, colours[..., 0]]))  # with alpha
    Image.fromarray(luma).save(tmp_path / "in/deep.tif")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    save(tmp_path / "in/IMG_0008.jpg", luma, exif=exif)
    for channels, original in ((1, grey), (3, threefold)):
        folder, out, said = model(channels, "NaturalImage2DIO", ".png"), tmp_path / f"out{channels}", []
        expected = read(nnunet(folder, original))
        assert len(np.unique(expected)) > 1
        masks = predict(folder, tmp_path / "in", out, say=said.append, overlay=True)
        assert [mask.name for mask in masks] == ["IMG_0007.png", "IMG_0008.png", "a.png", "deep.png"]
        assert {mask.name for mask in (out / "overlay").iterdir()} == {mask.name for mask in masks}
        assert_drawn_again(out / "overlay/IMG_0008.png", folder, tmp_path / "in")
        np.testing.assert_array_equal(read(out / "a.png"), expected)
        np.testing.assert_array_equal(read(out / "deep.png"), expected)
        assert read(out / "IMG_0008.png").shape == luma.T.shape
        text = "\n".join(said)
        assert_names(text, "IMG_0008: 39 x 31 pixels", "EXIF orientation")
        if channels == 1:
            np.testing.assert_array_equal(read(out / "IMG_0007.png"), expected)
            assert_names(text, "alpha", "colour image was made grey")
        else:
            assert_names(text, "alpha", "grey image was made colour")


def test_a_dicom_series(model, nnunet, tmp_path):
    series = write_dicom(tmp_path / "patients" / "DOE.1")
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series))
    image = sitk.ReadImage(names)
    folder = model()
    expected = read(nnunet(folder, write(tmp_path / "case_0000.mha", image)))  # NIfTI has voxel sizes in float32 only
    for number, given in enumerate((series, series.parent)):
        (mask,) = predict(folder, given, tmp_path / f"out{number}")
        assert mask.name == "DOE.1.nii.gz"
        np.testing.assert_array_equal(read(mask), expected)
        assert_same_place(mask, image)


def test_channels_by_name_by_pattern_and_by_number(model, nnunet, tmp_path):
    folder = model(2, names=("T1", "FLAIR"))
    files = {}
    for patient in ("P 1", "P 2"):
        for number, name in enumerate(("t1", "flair")):
            path = tmp_path / "patients" / patient / f"{name}.nii.gz"
            files[patient, number] = write(path, volume(len(files)))
    numbered = tmp_path / "numbered"
    numbered.mkdir()
    for (patient, number), path in files.items():
        (numbered / f"{patient}_{number:04d}.nii.gz").write_bytes(path.read_bytes())
    expected = {patient: read(nnunet(folder, files[patient, 0], files[patient, 1])) for patient in ("P 1", "P 2")}
    assert not (expected["P 1"] == expected["P 2"]).all()
    base = tmp_path / "patients"
    patterns = {"FLAIR": f"{base}/*/flair.nii.gz", "T1": "*/t1.nii.gz"}  # from anywhere, or from the folder
    for number, masks in enumerate(
        (
            predict(folder, numbered, tmp_path / "out0"),
            predict(folder, base, tmp_path / "out1", channels=patterns),
        )
    ):
        assert [mask.name for mask in masks] == ["P 1.nii.gz", "P 2.nii.gz"], number
        for mask in masks:
            np.testing.assert_array_equal(read(mask), expected[mask.name[:3]])
    (mask,) = predict(folder, [], tmp_path / "out2", channels={"1": files["P 2", 1], "T1": files["P 2", 0]})
    assert mask.name == "t1.nii.gz"
    np.testing.assert_array_equal(read(mask), expected["P 2"])
    for channels, facts in (
        ({"T1": "*/t1.nii.gz"}, ("T1", "FLAIR")),
        (patterns | {"T2": "x"}, ("T2", "FLAIR")),
        (patterns | {"T1": "*/t9.nii.gz"}, ("patients", "*/t9.nii.gz")),
        (patterns | {"T1": "P 1/t1.nii.gz"}, ("P 1/t1.nii.gz is one file", "*/flair.nii.gz a pattern")),
    ):
        with raises(ModelError, *facts):
            predict(folder, base, tmp_path / "never", channels=channels)
    files["P 2", 1].unlink()
    said = []
    with raises(IncompleteError, "1 of 2", "P 2"):
        predict(folder, base, tmp_path / "out1", channels=patterns, say=said.append)
    assert_names(said, files["P 2", 0], "*/flair.nii.gz")


def test_a_model_of_regions_whose_reader_is_neither_of_these(model, nnunet, tmp_path):
    """Tiff3DIO: its files go through it as they are."""
    folder = model(reader="Tiff3DIO", ending=".tif")
    regions = {"background": 0, "whole": [1, 2, 3, 4], "most": [2, 3, 4], "core": [3, 4], "tip": 4}
    change(folder / "dataset.json", labels=regions, regions_class_order=[2, 1, 3, 4])
    change(folder / "plans.json", original_median_spacing_after_transp=[1.0, 1.0, 1.0])
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in/stack_0000.tif", sitk.GetArrayFromImage(volume()), photometric="minisblack")
    expected = nnunet(folder, tmp_path / "in/stack_0000.tif")
    (mask,) = predict(folder, tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(tifffile.imread(mask), tifffile.imread(expected))
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"stack.tif", "stack.json"}
    record = load(tmp_path / "out/prediction.json")
    assert record["labels"] == {"0": "background", "2": "whole", "1": "most", "3": "core", "4": "tip"}


def test_what_cannot_be_meant_is_refused_and_nothing_is_left(model, tmp_path, monkeypatch):
    folder = model()
    good = write(tmp_path / "good.nii.gz")
    fine = volume()
    fine.SetSpacing((0.004, 0.004, 3.0))
    write(tmp_path / "fine.nii.gz", fine)
    (tmp_path / "cut.nii.gz").write_bytes(good.read_bytes()[:2000])
    picture = save(tmp_path / "photo.png", photo(0))
    (tmp_path / "empty/below").mkdir(parents=True)
    save(tmp_path / "pictures/a.png", photo(0))
    for name in ("a.nrrd", "a.mhd"):
        write(tmp_path / "twice" / name)
    (tmp_path / "file").touch()

    def refused(images, *facts, output=tmp_path / "out"):
        with raises(ModelError, *facts):
            predict(folder, images, output)
        assert not (tmp_path / "out").exists()

    refused(tmp_path / "fine.nii.gz", "fine.nii.gz", "0.004 x 0.004 mm", "1 x 1 mm", "rows x columns", "5 times")
    refused(picture, picture, ".nii.gz", "DICOM")
    refused(tmp_path / "pictures", tmp_path / "pictures", ".nii.gz", "DICOM")
    refused(tmp_path / "empty", tmp_path / "empty", ".nii.gz", "DICOM", "--channel 0='*/*'")
    refused(tmp_path / "cut.nii.gz", tmp_path / "cut.nii.gz", "again")
    refused(tmp_path / "none.nii.gz", tmp_path / "none.nii.gz", "does not exist")
    refused(tmp_path / "twice", "a.nrrd", "a.mhd", "rename")
    refused(good, tmp_path / "file", "-o", output=tmp_path / "file")
    refused(good, tmp_path / "file", "-o", output=tmp_path / "file" / "below")
    (tmp_path / "unmounted").symlink_to(tmp_path / "nowhere")
    refused(good, tmp_path / "unmounted", "-o", output=tmp_path / "unmounted")
    refused(good, tmp_path, "-o", output=tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "good.nii.gz").write_bytes(b"by hand")
    refused(good, "good.nii.gz", "prediction.json", output=tmp_path / "labels")
    assert [path.read_bytes() for path in (tmp_path / "labels").iterdir()] == [b"by hand"]
    change(folder / "plans.json", image_reader_writer="NaturalImage2DIO")
    refused(good, good, ".png")
    change(folder / "plans.json", image_reader_writer="SimpleITKIO")
    # as if it were 3D: what the network is does not matter before an image is read
    load = predicting.load_predictor

    def load_3d(*args, **settings):
        predictor = load(*args, **settings)
        predictor.configuration_manager.configuration["patch_size"] = [8, 32, 40]
        return predictor

    monkeypatch.setattr(predicting, "load_predictor", load_3d)
    refused(write(tmp_path / "flat.nii.gz", volume(shape=(1, 24, 40))), "flat.nii.gz", "single slice", "3D")
    dump(folder / "dataset_fingerprint.json", {"spacings": [[0.5, 1, 1], [0.55, 1, 1]]})
    refused(good, "good.nii.gz", "3 x 1.25 x 0.75 mm", "0.5 to 0.55 x 1 x 1 mm", "slices")
    (folder / "dataset_fingerprint.json").write_text("{")
    with pytest.raises(ModelError, match=r"^[^:]*dataset_fingerprint.json cannot be read as JSON"):
        predict(folder, good, tmp_path / "out")


def zeros(*shape):
    return sitk.GetImageFromArray(np.zeros(shape, np.uint8), isVector=shape[-1] == 3)


# more channels than the model's are found before they are found to differ in size; nnU-Net's SimpleITKIO reads a file
# of four axes, but its write_seg fails after the prediction
@pytest.mark.parametrize(
    ("channels", "ending", "images", "facts"),
    [
        (
            1,
            ".nii.gz",
            [zeros(2, 32, 40), zeros(3, 32, 40)],
            ("in (", "2 channels", "1 (0 MR)", "--channel", "-i FILE"),
        ),
        (2, ".nii.gz", [zeros(2, 32, 40)], ("has 1 channel", "is for 2")),
        (2, ".nii.gz", [zeros(2, 2, 32, 40)], ("more than three axes", "one volume each")),
        (2, ".png", [zeros(32, 40, 3)], ("has 3 channels", "is for 2")),
    ],
)
def test_images_of_other_channels_are_refused(model, tmp_path, channels, ending, images, facts):
    folder = model(channels, "NaturalImage2DIO" if ending == ".png" else "SimpleITKIO", ending)
    for number, image in enumerate(images):
        write(tmp_path / f"in/in_{number:04d}{ending}", image)
    with raises(ModelError, f"in_0000{ending}", *facts):
        predict(folder, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_bad_image_of_several_and_an_interrupted_run(model, tmp_path, monkeypatch, capsys):
    folder, out = model(), tmp_path / "out"
    for name in "abc":
        write(tmp_path / "in" / f"{name}.nii.gz")
    (tmp_path / "in/b.nii.gz").write_bytes(b"nothing")
    find = predicting.Scans.read

    def interrupt(self, case, findings):
        if case.name == "c":
            raise KeyboardInterrupt
        return find(self, case, findings)

    def run(*options, read=find):
        with monkeypatch.context() as patch:
            patch.setattr(predicting.Scans, "read", read)
            return cli.main([*f"predict -m {folder} -i {tmp_path / 'in'} -o {out} --device cpu".split(), *options])

    assert run(read=interrupt) == 130
    assert "--continue" in capsys.readouterr().err
    assert {path.name for path in out.iterdir()} == {"a.nii.gz", "prediction.json", "dataset.json"}
    before = (out / "a.nii.gz").stat().st_mtime_ns
    assert run("--continue") == 1
    said = capsys.readouterr()
    assert_names(said.err, "1 of 2 images", "b", out)
    assert_names(said.out, str(folder), "1 of them there already", "b failed", "cpu")
    assert (out / "a.nii.gz").stat().st_mtime_ns == before
    assert read(out / "c.nii.gz").shape == (2, 24, 40)
    (tmp_path / "in/b.nii.gz").unlink()
    assert run("--continue", "--no-mirroring") == 2
    assert_names(capsys.readouterr().err, out / "prediction.json", "--continue", "mirroring")
    assert run("--no-mirroring", read=interrupt) == 130
    assert not (out / "c.nii.gz").exists()  # which --continue would take for one without mirroring
    capsys.readouterr()
    assert run("--no-mirroring") == 0  # written anew
    assert (out / "a.nii.gz").stat().st_mtime_ns > before
    assert_names(capsys.readouterr().out, "2 masks", out / "prediction.json")
    (tmp_path / "in/a.nii.gz").unlink()
    assert run() == 2  # its mask would stay beside others' prediction.json
    assert_names(capsys.readouterr().err, out / "a.nii.gz", "prediction.json", "-o")
    assert (out / "a.nii.gz").exists()


@pytest.mark.parametrize(
    ("options", "facts"),
    [("", ("-i", "--channel")), ("--channel T1", ("T1", "NAME=FILE")), ("--channel a=b --channel a=c", ("NAME=FILE",))],
)
def test_options_that_do_not_fit(options, facts, capsys, tmp_path):
    assert cli.main(f"predict -m {tmp_path} -o {tmp_path}/out {options}".split()) == 2
    assert_names(capsys.readouterr().err, *facts)


def test_an_unexpected_failure_of_one_image_is_a_sentence_too(model, tmp_path, monkeypatch, caplog):
    folder = model()
    files = [write(tmp_path / f"{name}.nii.gz") for name in "ab"]

    def fail(*_):
        raise AssertionError("a library's own words")

    monkeypatch.setattr(predicting.FastPredictor, "predict_single_npy_array", fail)
    with pytest.raises(IncompleteError, match=r"^2 of 2 images .*\(a, b\)$"):  # and no folder, as there is none
        predict(folder, files, tmp_path / "out")
    assert "a library's own words" in caplog.text
