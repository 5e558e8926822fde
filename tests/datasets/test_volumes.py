"""`convert volumes`: NIfTI, NRRD, MetaImage and DICOM, and whether image and mask lie at one place."""

import gzip
import re

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.testing import assert_allclose, assert_array_equal

from swin_umamba_nnunet.datasets import Volumes, _dicom, _volumes
from swin_umamba_nnunet.datasets._model import CaseError, Findings, SourceCase
from tests.datasets.trees import write_dicom, write_dicom_object, write_volume, write_volumes
from tests.messages import assert_names, raises

ONES = np.ones((2, 3, 4), np.uint8)
CHANNELS = Volumes(images=["T1=*/t1.nrrd", "T2=*/t2.nrrd"], masks="*/seg.nrrd", label=["lesion=2"])


def _one(tmp_path, image=None, mask=None, **mask_settings):
    """A source of one case; arrays (3, 4, 5)."""
    image = np.random.default_rng(0).normal(size=(3, 4, 5)) if image is None else image
    mask = np.eye(4, 5, dtype=np.uint8)[None].repeat(3, 0) if mask is None else mask
    write_volume(tmp_path / "s/images/a.nii.gz", image)
    write_volume(tmp_path / "s/masks/a.nii.gz", mask, **mask_settings)
    return tmp_path / "s"


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".NII.GZ"])
def test_every_format(tmp_path, convert, ending):
    source = write_volumes(tmp_path / "s", ending=ending.lower())
    for path in sorted(source.rglob(f"*{ending.lower()}")):
        path.rename(path.with_name(path.name.replace(ending.lower(), ending)))
    converted = convert(Volumes(), source)
    assert converted.names("imagesTr") == [f"pat{i}_0000.nii.gz" for i in range(3)]
    image = sitk.ReadImage(str(converted.folder / "imagesTr/pat1_0000.nii.gz"))
    stored = np.random.default_rng(1).normal(size=(3, 6, 5)).astype(np.float32)
    assert_array_equal(sitk.GetArrayFromImage(image), stored)
    assert_allclose(image.GetSpacing(), (0.8, 0.7, 1.5), rtol=1e-6)
    assert_allclose(image.GetOrigin(), (10, -20, 5), rtol=1e-6)
    assert "1.5 x 0.7 x 0.8 (3 cases)" in converted.report


def test_a_volume_is_in_memory_once(tmp_path):
    path = write_volume(tmp_path / "a.nii", ONES)
    content = _volumes.read_volumes(SourceCase("a", (path,), None, "test"), Findings())
    assert np.shares_memory(content.images[0], sitk.GetArrayViewFromImage(content.volumes[0]))


@pytest.fixture
def channels(tmp_path):
    """A folder per patient, of two channels and a mask."""
    for patient in ("A 1", "B"):
        for index, name in enumerate(("t1", "t2", "seg")):
            write_volume(tmp_path / "s" / patient / f"{name}.nrrd", ONES * np.array(index, np.uint8))
    return tmp_path / "s"


def test_channels_and_one_folder_per_patient(channels, convert):
    converted = convert(CHANNELS, channels)
    assert converted.names("imagesTr") == ["A_1_0000.nii.gz", "A_1_0001.nii.gz", "B_0000.nii.gz", "B_0001.nii.gz"]
    assert converted.channels == ["T1", "T2"]
    assert converted.read("imagesTr/B_0001.nii.gz").max() == 1


def test_a_missing_channel_is_named(channels, inspected):
    (channels / "B/t2.nrrd").unlink()
    errors = inspected(CHANNELS, channels).errors
    assert [(error.topic, error.case) for error in errors] == [("a channel is missing: T2", "B")]


def test_channels_at_different_places(channels, refused):
    write_volume(channels / "B/t2.nrrd", ONES, origin=(0, 0, 0))
    assert "register" in refused(CHANNELS, channels).topic


@pytest.mark.parametrize(
    "names",
    [
        ("images/sub-{}_T1w", "masks/sub-{}_dseg"),
        ("images/sub-{}_ses-1_T1w", "masks/sub-{}_ses-1_dseg"),
        ("images/p_{}_flair", "masks/p_{}_lesion"),
        ("images/p{}_flair_x", "masks/p{}_lesion"),
        ("images/scan{}", "masks/roi{}"),
        ("images/p{}/a{}", "masks/p{}/b"),
    ],
)
def test_names_that_do_not_match_are_told_how_to(tmp_path, inspected, reported, names):
    for number in "01", "02":
        for name in names:
            write_volume(tmp_path / f"{name.format(number, number)}.nii.gz", ONES)
    report = reported(Volumes(), tmp_path)
    assert len(inspected(Volumes(), tmp_path).errors) == 2
    assert "in 0 masks" not in report
    (pattern,) = re.findall("--image-key '?([^'\n]+?)'?:?\n", report)
    again = inspected(Volumes(["images"], "masks", image_key=pattern), tmp_path)
    assert not again.errors
    assert len(again.cases) == 2


def test_names_that_nothing_matches(tmp_path, reported):
    for name in ("images/a", "masks/b"):
        write_volume(tmp_path / f"{name}.nii.gz", ONES)
    assert_names(reported(Volumes(), tmp_path), "--image-key REGEX", "a.nii.gz and b.nii.gz")


def test_labels_of_any_number(tmp_path, convert):
    mask = np.zeros((3, 4, 5), np.float32)
    mask[0, 0, :3], mask[1, 0, :2] = 205, 420
    source = _one(tmp_path, mask=mask)
    array = convert(Volumes(label=["ventricle=420", "myocardium=205"]), source).read("labelsTr/a.nii.gz")
    assert array.dtype == np.uint8
    assert_array_equal(array, np.select([mask == 420, mask == 205], [1, 2], 0))


@pytest.mark.parametrize(
    ("origin", "spacing", "accepted"),
    [
        ((10.0, -20.0, 5.0), (1.5, 0.7, 0.8), True),
        ((10.00001, -20.0, 5.0), (1.5, 0.70001, 0.8), True),  # float32 headers
        ((10.0, -20.0, 5.5), (1.5, 0.7, 0.8), False),
        ((10.0, -20.0, 5.0), (1.5, 0.7, 0.9), False),
        ((10.0, -20.0, 5.0), (1.6, 0.7, 0.8), False),
    ],
)
def test_image_and_mask_must_lie_at_one_place(tmp_path, inspected, convert, origin, spacing, accepted):
    source = _one(tmp_path, origin=origin, spacing=spacing)
    errors = inspected(Volumes(), source).errors
    assert (not errors) == accepted
    if not accepted:
        assert_names(errors[0].detail, "mm apart", "origin" if spacing[0] == 1.5 and origin[2] != 5 else "spacing")
    converted = convert(Volumes(trust_image_geometry=not accepted), source)
    image, mask = (sitk.ReadImage(converted.folder / name) for name in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"))
    assert image.GetOrigin() == mask.GetOrigin()
    assert image.GetSpacing() == mask.GetSpacing()
    assert ("moved to the image's place" in converted.report) == (not accepted)


def test_a_mirrored_mask_is_found(tmp_path, refused):
    """The same voxels in space, stored the other way round, are another grid."""
    source = _one(tmp_path)
    image = sitk.ReadImage(source / "masks/a.nii.gz")
    image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    sitk.WriteImage(image, source / "masks/a.nii.gz")
    assert "direction" in refused(Volumes(), source).detail


FOUR = sitk.JoinSeries([sitk.GetImageFromArray(np.zeros((3, 4, 5), np.float32))] * 2)
COLOUR = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True)


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (None, np.ones((3, 4, 6), np.uint8), "differ in size"),
        (FOUR, None, "more than three axes"),
        (COLOUR, None, "several values per voxel"),
    ],
)
def test_broken_volumes(tmp_path, refused, image, mask, message):
    source = _one(tmp_path, mask=mask)
    if image is not None:
        sitk.WriteImage(image, source / "images/a.nii.gz")
    assert message in refused(Volumes(), source).topic


@pytest.mark.parametrize(("part", "ending"), [("images", ".mha"), ("images", ".nii"), ("masks", ".nii.gz")])
def test_values_that_are_not_finite(tmp_path, refused, part, ending):
    """ITK reads NaN in NIfTI files as 0, and so does nnU-Net through it."""
    for each in ("images", "masks"):
        write_volume(tmp_path / each / f"a{ending}", np.full((3, 4, 5), np.nan if each == part else 1.0))
    error = refused(Volumes(), tmp_path)
    assert "not finite" in error.topic or "no whole numbers" in error.topic
    assert f"a{ending}" in error.detail


def test_a_file_that_cannot_fit_is_not_read(tmp_path, refused):
    """Sizes are compared in the headers; the voxels of this one are not even there."""
    source = _one(tmp_path)
    path = write_volume(source / "images/a.nii.gz", np.zeros((90, 40, 50), np.uint8))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:400]))
    assert_names(refused(Volumes(), source), "differ in size", "90 x 40 x 50 and 3 x 4 x 5")


def test_sixty_four_bit_numbers(tmp_path, convert):
    source = _one(tmp_path, mask=np.ones((3, 4, 5), np.int64))
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(3, 4, 5)))
    image.CopyInformation(sitk.ReadImage(source / "masks/a.nii.gz"))
    sitk.WriteImage(image, source / "images/a.nii.gz")
    assert convert(Volumes(), source).read("imagesTr/a_0000.nii.gz").dtype == np.float32


def test_ct_is_suggested_by_its_values(tmp_path, inspected, reported):
    source = _one(tmp_path, image=np.full((3, 4, 5), -1000.0))
    assert "--modality CT" in reported(Volumes(), source)
    assert inspected(Volumes(modality="CT"), source).conversion.channels == ("CT",)
    assert "--modality" not in reported(Volumes(modality="CT"), source)


def test_a_spacing_of_one_is_asked_about(tmp_path, reported):
    for part in "images", "masks":
        write_volume(tmp_path / part / "a.mha", ONES, spacing=(1, 1, 1))
    assert "true, or never stored?" in reported(Volumes(), tmp_path)


DICOM = Volumes(images=["dicom"], masks="masks", modality="CT")


def read_series(folder):
    return _dicom.read_series(folder, Findings())


def _dicom_case(folder, name="P1", **settings):
    write_dicom(folder / "dicom" / name, **settings)
    image = read_series(folder / "dicom" / name)
    mask = sitk.GetImageFromArray((sitk.GetArrayFromImage(image) > 0).astype(np.uint8))
    mask.CopyInformation(image)
    (folder / "masks").mkdir(exist_ok=True)
    sitk.WriteImage(mask, str(folder / "masks" / f"{name}.nii.gz"))
    return folder


def test_dicom_series(tmp_path, convert):
    source = tmp_path / "s"
    _dicom_case(source, "P1", seed=1)
    _dicom_case(source, "P2", seed=2, uid="1.2.4")
    (source / "dicom/P1/.DS_Store").write_bytes(b"x")
    write_volume(source / "dicom/P2/saved.nii.gz", ONES)  # belongs to the series and is no case
    converted = convert(DICOM, source)
    image = sitk.ReadImage(converted.folder / "imagesTr/P2_0000.nii.gz")
    random = np.random.default_rng(2)
    stored = np.concatenate([random.integers(-1000, 500, (1, 6, 5)) for _ in range(4)])
    assert_array_equal(sitk.GetArrayFromImage(image), stored)
    assert image.GetSpacing() == pytest.approx((0.7, 0.8, 2.0))
    assert b"DOE" not in (converted.folder / "imagesTr/P2_0000.nii.gz").read_bytes()


def test_dicom_slices_are_ordered_by_position(tmp_path):
    write_dicom(tmp_path / "up", seed=3)
    write_dicom(tmp_path / "shuffled", seed=3, positions=(4.0, 0.0, 6.0, 2.0))
    up, shuffled = (sitk.GetArrayFromImage(read_series(tmp_path / name)) for name in ("up", "shuffled"))
    assert_array_equal(shuffled[[2, 0, 3, 1]], up)


def test_several_series_in_one_folder_are_named(tmp_path, refused):
    write_dicom(_dicom_case(tmp_path) / "dicom/P1", uid="1.2.77", positions=(0.0, 3.0))
    error = refused(DICOM, tmp_path)
    assert_names(error, "several DICOM series", '"series 1.2.3" 4 files', '"series 1.2.77" 2 files')


@pytest.mark.filterwarnings("ignore")
def test_missing_slices_and_gantry_tilt_are_warned_of(tmp_path, reported):
    _dicom_case(tmp_path, positions=(0.0, 2.0, 6.0, 8.0))
    _dicom_case(tmp_path, "P2", uid="1.2.4", shift=0.3)
    facts = ("unequal distances", "P1: 2 to 4 mm, usually 2 mm", "gantry tilt", "0.6 mm per slice")
    assert_names(reported(DICOM, tmp_path), *facts)


def test_two_slices_at_one_place():
    positions = np.array([[0, 0, z] for z in (4.0, 0, 2, 0)])
    with raises(CaseError, "at one place"):
        _dicom.judge_positions(positions, np.array([1.0, 0, 0, 0, 1, 0]), "x", Findings())


@pytest.mark.parametrize("slice_number", [0, 1, 3])
def test_a_dicom_file_that_is_cut_off(tmp_path, inspected, refused, slice_number):
    """GDCM leaves the slice out; at either end nothing else would show it."""
    _dicom_case(tmp_path)
    (tmp_path / "dicom/P1/DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert not inspected(DICOM, tmp_path).errors
    path = sorted((tmp_path / "dicom/P1").glob("*.dcm"))[slice_number]
    path.write_bytes(path.read_bytes()[:-20])
    assert_names(refused(DICOM, tmp_path), "cut off", path.name)


# RT Structure Set, Comprehensive SR, Presentation State, RT Plan, X-Ray Radiation Dose SR
@pytest.mark.parametrize("kind", ["481.3", "88.33", "11.1", "481.5", "88.67"])
def test_dicom_objects_that_are_no_images(tmp_path, refused, convert, kind):
    """GDCM leaves these out, too, and the series is whole without them."""
    source = _dicom_case(tmp_path / "s")
    write_dicom_object(source / "dicom/P1/RS.dcm", f"1.2.840.10008.5.1.4.1.1.{kind}")
    slices = sorted((source / "dicom/P1").glob("*IM*.dcm"))
    converted = convert(DICOM, source)
    assert "RS.dcm" in converted.report
    assert converted.read("imagesTr/P1_0000.nii.gz").shape == (len(slices), 6, 5)
    slices[0].write_bytes(slices[0].read_bytes()[:-20])
    error = refused(DICOM, source)
    assert_names(error, "cut off", slices[0].name)
    assert "more" not in error.detail


@pytest.mark.parametrize("meta", [True, False])
def test_a_dicom_file_that_ends_in_its_header(tmp_path, meta):
    """Of such a file only the kind of object is known, or not even that."""
    folder = write_dicom(tmp_path / "dicom")
    kind = "1.2.840.10008.5.1.4.1.1.2"
    content = write_dicom_object(folder / "cut.dcm", kind, meta).read_bytes()
    for length in 132, content.index(kind.encode()) + len(kind) - 2, len(content):
        (folder / "cut.dcm").write_bytes(content[:length])
        with raises(CaseError, "cut off"):
            read_series(folder)


def test_names_of_dicom_files_are_compared_without_their_folder(tmp_path, monkeypatch):
    """GDCM gives them with slashes, which is not how pathlib writes them on Windows."""
    folder = write_dicom(tmp_path / "dicom")
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), "1.2.3")
    given = [name.replace("/dicom/", "/./dicom//") for name in names]
    monkeypatch.setattr(sitk.ImageSeriesReader, "GetGDCMSeriesFileNames", lambda folder, uid: given)
    assert read_series(folder).GetSize() == (5, 6, 4)
