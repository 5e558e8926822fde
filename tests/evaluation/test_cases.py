"""Pairing and reading of label files, and what is said about bad ones."""

import gzip
import json

import numpy as np
import pytest
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from numpy.testing import assert_array_equal

from swin_umamba_nnunet.evaluation import EvaluationError, pair_cases, read_image, read_pair, read_segmentation
from swin_umamba_nnunet.evaluation.cases import FILE_ENDINGS, CasePair
from tests.evaluation.files import SPACING, blobs, refused, write_image, write_volume

VOLUME = blobs(0, (4, 6, 8))
IMAGE = blobs(1)


def touch(folder, *names):
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("file", "labels", "shape", "spacing", "unit"),
    [
        *((f"a{ending}", VOLUME, (4, 6, 8), SPACING, "mm") for ending in (".nii.gz", ".nii", ".nrrd", ".mha")),
        ("one_slice.nii.gz", VOLUME[:1], (6, 8), SPACING[1:], "mm"),
        ("image.nii.gz", IMAGE, (20, 24), SPACING[1:], "mm"),
        *((f"a{ending}", IMAGE, (20, 24), (1, 1), "px") for ending in (".png", ".bmp", ".tif", ".tiff")),
        ("ids.png", np.arange(480, dtype=np.uint16).reshape(20, 24) * 100, (20, 24), (1, 1), "px"),
    ],
)
def test_formats(tmp_path, file, labels, shape, spacing, unit):
    """Pictures have no millimetres, an image in a volume's format has."""
    spaced = {"spacing": SPACING[-labels.ndim :]} if unit == "mm" else {}
    found = read_segmentation((write_volume if spaced else write_image)(tmp_path / file, labels, **spaced))
    assert_array_equal(found.array, labels.reshape(shape))
    assert found.spacing == pytest.approx(spacing)
    assert found.unit == unit


@pytest.mark.parametrize("slices", [3, 4, 7])
def test_tiff_volumes(tmp_path, slices):
    """Also those of 3 or 4 slices, which look like colours."""
    volume = blobs(2, (slices, 9, 11))
    path = write_image(tmp_path / "a.tif", volume)
    found = read_segmentation(path)
    assert_array_equal(found.array, volume)
    assert (found.spacing, found.unit) == ((1.0, 1.0, 1.0), "voxel")
    (tmp_path / "a.json").write_text(json.dumps({"spacing": SPACING}))
    found = read_segmentation(path)
    assert (found.spacing, found.unit) == (SPACING, "mm")


@pytest.mark.filterwarnings("ignore:.*tifffile.*:DeprecationWarning")
@pytest.mark.parametrize("slices", [1, 3, 4, 7])
def test_tiff_volumes_that_nnunet_wrote(tmp_path, slices):
    volume = blobs(2, (slices, 9, 11))
    Tiff3DIO().write_seg(volume, str(tmp_path / "a.tif"), {"spacing": list(SPACING)})
    found = read_segmentation(tmp_path / "a.tif")
    assert_array_equal(found.array, volume[0] if slices == 1 else volume)


def test_whole_numbers_stored_as_floats_are_labels(tmp_path):
    found = read_segmentation(write_volume(tmp_path / "a.nii.gz", VOLUME.astype(np.float32)))
    assert found.array.dtype == np.uint8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (VOLUME * np.float32(0.5), "fractions such as [01].5"),
        (VOLUME.astype(np.int16) - 1, "negative value -1"),
    ],
)
def test_values_that_are_no_labels(tmp_path, values, message):
    path = write_volume(tmp_path / "odd.mha", values)
    with pytest.raises(EvaluationError, match=f"odd.mha has .*{message}"):
        read_segmentation(path)


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_are_no_labels(tmp_path, ending, channels):
    path = write_image(tmp_path / f"colour{ending}", np.repeat(IMAGE[..., None], channels, axis=-1))
    with refused(f"colour{ending} has {channels} channels"):
        read_segmentation(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha"])
def test_values_that_are_not_finite_whatever_the_reader_makes_of_them(tmp_path, ending):
    """ITK reads NaN in NIfTI files as 0, which would be background."""
    values = VOLUME.astype(np.float32)
    values[0, 0, 0] = np.nan
    path = write_volume(tmp_path / f"odd{ending}", values)
    with refused(f"odd{ending}", "not finite", "0, 1, 2"):
        read_segmentation(path)


@pytest.mark.parametrize(("ending", "content"), [(e, c) for e in FILE_ENDINGS for c in ("empty", "noise", "cut")])
def test_damaged_files(tmp_path, ending, content):
    generator = np.random.default_rng(0)
    path = tmp_path / f"bad{ending}"
    if content == "cut":
        volume = generator.integers(0, 9, (8, 16, 16), dtype=np.uint8)
        pixels = ending in (".png", ".bmp", ".tif", ".tiff")
        (write_image if pixels else write_volume)(path, volume[0] if pixels else volume)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(b"" if content == "empty" else generator.bytes(2000))
    with pytest.raises(EvaluationError, match=r"bad\.\S+ .*label file"):
        read_segmentation(path)


def test_cases_are_paired_by_name_whatever_the_ending(tmp_path):
    truth = touch(tmp_path / "gt", "b_label.tiff", "a_label.tiff", ".hidden.tiff", "notes.txt", "dataset.json")
    predicted = touch(tmp_path / "pred", "a.png", "b.png", "plans.json", "a.npz")
    (predicted / "sub.png").mkdir()
    pairs = pair_cases(truth, predicted, ground_truth_suffix="_label")
    assert pairs.cases == [CasePair(name, truth / f"{name}_label.tiff", predicted / f"{name}.png") for name in "ab"]


def test_file_ending_picks(tmp_path):
    truth = touch(tmp_path / "gt", "a.png", "a_s.nii.gz")
    for ending, name in (("nii.gz", "a_s"), ("_s.nii.gz", "a")):
        assert pair_cases(truth, truth, file_ending=ending).cases == [CasePair(name, *[truth / "a_s.nii.gz"] * 2)]
    with refused("prediction", tmp_path / "nowhere", "exist"):
        pair_cases(truth, tmp_path / "nowhere", file_ending=".png")


def test_missing_and_extra_cases_are_named(tmp_path):
    truth = touch(tmp_path / "gt", *(f"c{i:02d}.png" for i in range(15)))
    predicted = touch(tmp_path / "pred", "c00.png", "other.png")
    with refused("14 cases ", "pred: c01, ", " 4 more; 1 case ", "gt: other", "--allow-missing"):
        pair_cases(truth, predicted)
    assert [pair.name for pair in pair_cases(truth, predicted, allow_missing=True).cases] == ["c00"]


@pytest.mark.parametrize(
    ("names", "options", "facts"),
    [
        ((), {}, ("empty", ".nii.gz, .tiff")),
        (("a.jpg", "b.jpg"), {}, (".jpg", ".nii.gz, .tiff")),
        (("a.png", "b.nii.gz"), {}, ("1 .png", "1 .nii.gz", "--file-ending")),
        (("a.png",), {"file_ending": ".nrrd"}, ("no label files", ".nrrd")),
        (("a.png", "a_label.png"), {"ground_truth_suffix": "_label"}, ("a_label.png", "a.png", "case a;")),
        (("z.png",), {}, ("pred", " z,", "a, b")),
    ],
)
def test_bad_folders(tmp_path, names, options, facts):
    truth, predicted = touch(tmp_path / "gt", *names), touch(tmp_path / "pred", "a.png", "b.png")
    with refused(truth, *facts):
        pair_cases(truth, predicted, **options)


def test_differing_shape_is_seen_in_the_headers(tmp_path):
    """Before gigabytes are read of a file that cannot fit: this one's voxels are not even there."""
    truth, predicted = write_volume(tmp_path / "gt.nii.gz", VOLUME), tmp_path / "pred.nii.gz"
    write_volume(predicted, np.zeros((9, 60, 80), np.uint8))
    predicted.write_bytes(gzip.compress(gzip.decompress(predicted.read_bytes())[:400]))
    with pytest.raises(EvaluationError, match=r"case a\b.*gt.*\(4, 6, 8\).*pred.*\(9, 60, 80\)"):
        read_pair(CasePair("a", truth, predicted))


def test_differing_spacing(tmp_path):
    pair = CasePair("a", tmp_path / "gt/a.nii.gz", tmp_path / "pred/a.nii.gz")
    write_volume(pair.ground_truth, VOLUME)
    write_volume(pair.prediction, VOLUME, (3.0, 1.5, 0.50001))  # as after rounding in a header
    read_pair(pair)
    write_volume(pair.prediction, VOLUME, (3.0, 1.5, 0.6))
    with refused("case a: ", "3 x 1.5 x 0.5 mm ", " 3 x 1.5 x 0.6 mm"):
        read_pair(pair)


def test_a_reader_by_name(tmp_path):
    path = write_volume(tmp_path / "a.nii.gz", VOLUME)
    assert_array_equal(read_segmentation(path, "NibabelIO").array, VOLUME)
    with refused("Nonsense", "dataset.json", "overwrite_image_reader_writer"):
        read_segmentation(path, "Nonsense")


def test_sixteen_bit_and_transparent_colours(tmp_path):
    deep = read_image([write_image(tmp_path / "deep.tif", np.full((30, 40, 3), 65535, np.uint16))])
    assert np.unique(deep.array) == pytest.approx([255])
    clear = read_image([write_image(tmp_path / "clear.png", np.full((30, 40, 4), 200, np.uint8))])
    assert clear.array.shape == (1, 30, 40, 3)
    assert np.unique(clear.array) == 200
