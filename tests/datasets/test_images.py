"""`convert images`: folders of 2D images and masks, good and bad."""

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.testing import assert_array_equal
from PIL import Image

from swin_umamba_nnunet.datasets import ConversionError, Images
from swin_umamba_nnunet.evaluation import evaluate_folders
from swin_umamba_nnunet.evaluation.protocols import Cells, Plain
from tests.datasets.trees import blob, photo, save, snapshot, write_case, write_images
from tests.messages import assert_names, raises


@pytest.fixture
def source(tmp_path):
    """Four images and masks."""
    return write_images(tmp_path / "source")


def _topics(inspection, severity):
    return [finding.topic for finding in inspection.findings if finding.severity == severity]


def test_images_and_masks(source, convert):
    before = snapshot(source)
    converted = convert(Images(), source)
    assert converted.names("imagesTr") == [f"img{i}_0000.png" for i in range(4)]
    assert converted.names("labelsTr") == [f"img{i}.png" for i in range(4)]
    assert converted.json["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert converted.labels == ["background", "foreground"]
    assert_array_equal(converted.read("imagesTr/img2_0000.png"), photo(2))
    assert_array_equal(converted.read("labelsTr/img2.png"), blob(1))
    assert converted.record["cases"]["img1"]["label"] == str(source / "masks/img1.png")
    assert not (converted.folder / "imagesTs").exists()
    assert converted.splits is None
    assert snapshot(source) == before


def test_source_with_train_val_and_test(tmp_path, convert):
    for part, seeds in (("train", (0, 1, 2)), ("val", (3,)), ("test", (4, 5))):
        for seed in seeds:
            write_case(tmp_path / "s" / part, f"i{seed}", seed)
    (tmp_path / "s/test/masks/i5.png").unlink()
    converted = convert(Images(), tmp_path / "s")
    assert converted.names("imagesTs") == ["i4_0000.png", "i5_0000.png"]
    assert converted.names("labelsTs") == ["i4.png"]
    assert "1 test images have no mask" in converted.report
    assert converted.splits == [{"train": ["i0", "i1", "i2"], "val": ["i3"]}]
    with raises(ConversionError, "--folds 3", "--val-as test"):
        Images(folds=3).conversion(tmp_path / "s")
    held_out = convert(Images(val_as="test"), tmp_path / "s")
    assert_names(held_out.report, "3 training cases", "5 folds", "FOLD all", "--folds")
    assert held_out.names("imagesTs") == ["i3_0000.png", "i4_0000.png", "i5_0000.png"]
    assert held_out.splits is None


def test_patterns_and_keys(tmp_path, convert):
    for index in range(3):
        save(tmp_path / "s" / f"pat{index}" / "photo.bmp", photo(index))
        save(tmp_path / "s" / f"pat{index}" / "photo_lesion.png", blob())
    by_folder = Images(images=["*/photo.bmp"], masks="*/photo_lesion.png")
    assert convert(by_folder, tmp_path / "s").names("labelsTr") == [f"pat{i}.png" for i in range(3)]
    by_key = Images(images=["**/*"], masks="*/*_lesion.png", image_key=r"pat(\d)/photo")
    assert convert(by_key, tmp_path / "s").names("labelsTr") == ["0.png", "1.png", "2.png"]


def test_masks_among_the_images_to_hold_out_are_no_images(source, convert):
    for index in range(2):
        save(source / "held" / f"t{index}.png", photo(9 + index))
        save(source / "held" / f"t{index}_mask.png", blob())
    converted = convert(Images(test_images=["held/*"], test_masks="held/*_mask.png"), source)
    assert converted.names("imagesTs") == ["t0_0000.png", "t1_0000.png"]
    assert converted.names("labelsTs") == ["t0.png", "t1.png"]


def test_groups_never_come_apart(tmp_path, convert):
    for index in range(20):
        write_case(tmp_path / "s", f"P{index // 2}_{index}", index)
    converted = convert(Images(group_pattern=r"(P\d+)_", test_fraction=0.2), tmp_path / "s")
    assert "groups       10, of which 2 in the test set" in converted.report
    for fold in converted.splits:
        train, val = ({name.split("_")[0] for name in names} for names in fold.values())
        assert not train & val
    assert len(converted.splits) == 5


def test_groups_that_the_source_parts_and_images_outside_the_pattern(tmp_path, inspected):
    for part, name in (("train", "P7_0"), ("test", "P7_1"), ("train", "X")):
        write_case(tmp_path / part, name, len(name))
    errors = inspected(Images(group_pattern=r"(P\d)_"), tmp_path).errors
    assert [(error.case, error.detail) for error in errors] == [
        ("X", str(tmp_path / "train/images/X.png")),
        ("P7", "test and train"),
    ]


def _colour_mask(*colours):
    mask = np.zeros((*blob().shape, 3), np.uint8)
    for index, colour in enumerate(colours):
        mask[2 * index + 1, 1:8] = colour
    return mask


def test_colour_coded_masks(source, convert):
    for index in range(4):
        save(source / f"masks/img{index}.png", _colour_mask((255, 0, 0), (0, 255, 0), (255, 255, 255)))
    save(source / "masks/img0.png", np.zeros_like(blob()))  # a grey file among coloured ones
    converted = convert(Images(label=["ignore=#ffffff", "green=#00ff00", "red=255,0,0"]), source)
    assert converted.labels == ["background", "green", "red", "ignore"]
    assert_array_equal(converted.read("labelsTr/img1.png")[[1, 3, 5, 7], 1], [2, 1, 3, 0])
    assert converted.read("labelsTr/img0.png").max() == 0


def test_unlisted_colours(source, inspected, refused, convert):
    save(source / "masks/img1.png", _colour_mask((255, 0, 0), (9, 9, 8)))
    assert "--label background='#000000'" in inspected(Images(), source).errors[0].topic
    label = ["red=#ff0000", "white=#ffffff"]
    error = refused(Images(label=label), source)
    assert (error.case, error.detail) == ("img1", "#090908 (7 pixels)")
    converted = convert(Images(label=label, others_are_background=True), source)
    assert converted.read("labelsTr/img1.png").sum() == 7


BLACK, RED, WHITE = (0, 0, 0), (128, 0, 0), (255, 255, 255)


def _save_indexed(source, *palettes):
    """Masks of a blob in each palette's last colour but black."""
    for number, palette in enumerate(palettes):
        shown = max(index for index, colour in enumerate(palette) if colour != BLACK)
        mask = Image.fromarray(np.where(blob(), shown, palette.index(BLACK)).astype(np.uint8)).convert("P")
        mask.putpalette([value for colour in palette for value in colour])
        mask.save(source / "masks" / f"img{number}.png")


@pytest.mark.parametrize(
    ("label", "palettes"),
    [
        (["background=1", "foreground=0"], [(RED, BLACK)] * 4),
        (["foreground=#800000"], [(BLACK, (1, 1, 1), RED), (RED, BLACK)] * 2),
        ([], [(WHITE, BLACK)] * 4),  # as Pillow writes a GIF
        ([], [(BLACK, WHITE), (WHITE, BLACK)] * 2),
    ],
)
def test_palette_masks_by_index_and_by_colour(source, convert, label, palettes):
    _save_indexed(source, *palettes)
    converted = convert(Images(label=label), source)
    assert converted.labels == ["background", "foreground"]
    for index in range(4):
        assert_array_equal(converted.read(f"labelsTr/img{index}.png"), blob(1))


def test_an_index_of_several_colours_is_no_label(source, inspected):
    _save_indexed(source, (BLACK, RED), (BLACK, WHITE), (BLACK, RED), (BLACK, RED))
    inspection = inspected(Images(), source)
    assert_names(inspection.errors[0].topic, "#800000", "#ffffff")
    assert_names(_topics(inspection, "warning"), "palettes", "--label NAME=INDEX")


DEEP = photo(3).astype(np.uint16) * 200


@pytest.mark.parametrize(
    ("image", "stored", "written"),
    [(DEEP, "png", "tif"), (DEEP[..., 0], "png", "png"), (DEEP[..., 0] / np.float32(7), "tif", "tif")],
    ids=["deep colour", "deep grey", "float"],
)
def test_what_png_cannot_hold_becomes_tiff(tmp_path, convert, image, stored, written):
    (tmp_path / "s/images").mkdir(parents=True)
    file = sitk.GetImageFromArray(image, isVector=image.ndim == 3)
    sitk.WriteImage(file, tmp_path / f"s/images/image.{stored}")
    save(tmp_path / "s/masks/image.tif", blob())
    found = convert(Images(), tmp_path / "s").read(f"imagesTr/image_0000.{written}")
    assert_array_equal(found, image)
    assert found.dtype == image.dtype


def test_grey_among_colour(source, refused, convert):
    save(source / "images/img1.png", photo(1)[..., 0])
    assert_names(refused(Images(), source), "case='img1'", "--channels")
    for channels, number in (("rgb", 3), ("grey", 1)):
        assert len(convert(Images(channels=channels), source).channels) == number


def test_jpeg_masks_need_to_be_told(tmp_path, inspected, convert):
    for index in range(2):
        save(tmp_path / f"s/images/img{index}.png", photo(index))
        save(tmp_path / f"s/masks/img{index}.jpg", blob(), quality=60)
    inspection = inspected(Images(), tmp_path / "s")
    assert len(inspection.errors) == 1
    assert "mask is a JPEG, which changes label values around edges" in _topics(inspection, "warning")
    converted = convert(Images(threshold=127), tmp_path / "s")
    assert "not purely 0/255" in converted.report
    assert_array_equal(converted.read("labelsTr/img0.png"), blob(1))


def test_exif_orientation_is_asked_about(tmp_path, refused, convert):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "s/images/0.png", photo(0), exif=exif)
    save(tmp_path / "s/masks/0.png", np.ascontiguousarray(np.rot90(blob(), -1)))
    assert "--exif apply" in refused(Images(), tmp_path / "s").topic
    assert "turned by 90 degrees?" in refused(Images(exif="ignore"), tmp_path / "s").detail
    converted = convert(Images(exif="apply"), tmp_path / "s")
    assert_array_equal(converted.read("imagesTr/0_0000.png"), np.rot90(photo(0), -1))
    assert_array_equal(converted.read("labelsTr/0.png"), np.rot90(blob(1), -1))


def test_everything_suspicious_is_reported(tmp_path, inspected, reported):
    write_images(tmp_path, 6)
    save(tmp_path / "masks/img0.png", np.zeros_like(blob()))
    save(tmp_path / "masks/img1.png", np.full_like(blob(), 255))
    save(tmp_path / "images/img3.png", photo(2))
    save(tmp_path / "images/img4.png", np.dstack([photo(4), blob()]))
    save(tmp_path / "masks/stray.png", blob())
    assert not inspected(Images(), tmp_path).errors
    assert_names(
        reported(Images(), tmp_path),
        "mask is all background",
        "mask is all foreground",
        "the same image several times",
        "img2 (train), img3 (train)",
        "partly transparent",
        "mask without an image",
        "stray.png",
    )


def test_duplicates_across_train_and_test(tmp_path, inspected):
    for part, seeds in (("train", (0, 1)), ("test", (1, 2))):
        for seed in seeds:
            write_case(tmp_path / part, f"{part}{seed}", seed)
    topics = _topics(inspected(Images(), tmp_path), "warning")
    assert "the same image in several of train, validation and test" in topics


IDS = np.zeros((40, 60), np.uint16)
IDS[5:17, 5:15], IDS[5:17, 15:25], IDS[30:, 40:50] = 1, 300, 2  # two that touch, one that the image cuts


def _colours(ids):
    """Another colour for each id."""
    return np.stack([ids % 7 * 30, ids % 11 * 20, ids % 256], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("ending", "mask"),
    [(".png", IDS), (".tif", IDS), (".png", _colours(IDS)), (".gif", (IDS % 251).astype(np.uint8))],
    ids=["16 bit", "TIFF", "colours", "GIF"],
)
def test_instance_masks(tmp_path, convert, ending, mask):
    """Become insides and boundaries, and are kept where `evaluate` finds them: a perfect prediction finds all."""
    for part in ("train", "test"):
        save(tmp_path / "s" / part / "images" / "n.png", photo(len(part), 40, 60))
        save(tmp_path / "s" / part / "masks" / f"n{ending}", mask)
    converted = convert(Images(instances=True), tmp_path / "s")
    assert converted.labels == ["background", "interior", "boundary"]
    expected = np.where(IDS > 0, 2, 0)
    expected[6:16, 6:14] = expected[6:16, 16:24] = expected[31:, 41:49] = 1
    assert_array_equal(converted.read("labelsTr/train_n.png"), expected)
    for name in ("instancesTr/train_n_label.tiff", "instancesTs/test_n_label.tiff"):
        pairs = np.stack([converted.read(name), IDS]).reshape(2, -1)
        assert len(np.unique(pairs, axis=1).T) == 4  # the same objects, whatever their numbers
    folders = converted.folder / "instancesTs", converted.folder / "labelsTs"
    for protocol, label in (Cells(), "cell"), (Plain(instances="gt-ids", distances=False), "object"):
        result = evaluate_folders(*folders, protocol=protocol, processes=1)
        assert result.value("test_n", label, "F1@0.5") == 1


def test_small_objects_and_masks_of_classes_do_not_pass_in_silence(tmp_path, reported):
    ids = np.zeros((40, 60), np.uint16)
    ids[2:4, 2:9], ids[10:14, 10:14], ids[20:30, 20:30] = 1, 2, 3
    save(tmp_path / "images/a.png", photo(1, 40, 60))
    save(tmp_path / "masks/a.png", ids)
    report = reported(Images(instances=True), tmp_path)
    assert_names(report, "boundary only", "most of them is boundary", "a: 1 objects")
    assert "pieces" not in report
    save(tmp_path / "masks/a.png", 255 * (ids > 1).astype(np.uint8))
    assert_names(reported(Images(instances=True), tmp_path), "insides come in pieces", "a: 2 pieces of 1 objects")


@pytest.mark.parametrize("option", [{"label": ["a=1"]}, {"threshold": 0}])
def test_instances_have_labels_of_their_own(source, option):
    with raises(ConversionError, "--instances", "--label", "--threshold"):
        Images(instances=True, **option).conversion(source)


def test_all_errors_are_reported_at_once_and_bad_cases_can_be_left_out(tmp_path, inspected, reported, convert):
    """Four of six cases cannot be used, each for its own reason."""
    broken = write_images(tmp_path / "broken", 6)
    save(broken / "masks/img0.png", blob(255, 10, 10))
    (broken / "images/img1.png").write_bytes(b"\x89PNG\r\n\x1a\n garbage")
    (broken / "masks/img2.png").unlink()
    (broken / "masks/img3.png").write_bytes(b"")
    assert {finding.case for finding in inspected(Images(), broken).errors} == {"img0", "img1", "img2", "img3"}
    facts = ("image 12 x 17, mask 10 x 10", "cannot be read as an image", "training image without a mask", "is empty")
    assert_names(reported(Images(), broken), *facts)
    converted = convert(Images(), broken, skip_bad=True)
    assert converted.names("labelsTr") == ["img4.png", "img5.png"]
    assert_names(converted.report, "4 left out", "left out: training image without a mask")
    for number in 4, 5:
        (broken / f"images/img{number}.png").write_bytes(b"garbage")
    assert "there is no training case" in str(inspected(Images(), broken, skip_bad=True).errors)


@pytest.mark.parametrize("kind", ["absent", "empty", "file", "zip", "no masks"])
def test_sources_that_are_none(tmp_path, kind):
    source = tmp_path / ("data.zip" if kind == "zip" else "data")
    if kind in ("file", "zip"):
        source.write_bytes(b"")
    elif kind == "empty":
        source.mkdir()
    elif kind == "no masks":
        save(source / "images" / "a.png", photo(0))
    with raises(ConversionError, source):
        Images().conversion(source)
