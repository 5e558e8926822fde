"""`convert images`: folders of 2D images and masks, good and bad."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image
from skimage import io

from swin_umamba_nnunet.datasets.conversion import (
    ConversionError,
    ImageSettings,
    LabelError,
    LabelRule,
    Match,
    format_report,
    parse_label,
    plan_images,
)
from tests.datasets.trees import blob, photo, save, snapshot, write_images


def _labels(*texts, **settings):
    return LabelRule(tuple(parse_label(text) for text in texts), **settings)


def _topics(inspection, severity):
    return [finding.topic for finding in inspection.findings if finding.severity == severity]


def test_images_and_masks(tmp_path, convert):
    source = write_images(tmp_path / "source")
    before = snapshot(source)
    converted = convert(plan_images(source))
    assert converted.names("imagesTr") == [f"img{i}_0000.png" for i in range(4)]
    assert converted.names("labelsTr") == [f"img{i}.png" for i in range(4)]
    assert converted.json["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert converted.json["labels"] == {"background": 0, "foreground": 1}
    assert converted.json["numTraining"] == 4
    np.testing.assert_array_equal(io.imread(converted.folder / "imagesTr/img2_0000.png"), photo(2))
    np.testing.assert_array_equal(io.imread(converted.folder / "labelsTr/img2.png"), blob(1))
    assert converted.record["cases"]["img1"]["label"] == str(source / "masks/img1.png")
    assert not (converted.folder / "imagesTs").exists()
    assert not (converted.folder / "splits_final.json").exists()
    assert snapshot(source) == before


def test_converted_twice_it_is_the_same(tmp_path, convert):
    plan = plan_images(write_images(tmp_path / "source", 6), ImageSettings(test_fraction=0.3))
    first = snapshot(convert(plan).folder)
    assert snapshot(convert(plan, overwrite=True).folder) == first


def test_unicode_spaces_upper_case_and_hidden_files(tmp_path, convert):
    source = tmp_path / "my data ü"
    for name, ending in (("Münze 1", "PNG"), ("图像", "Jpg"), ("c.v2", "TIF")):
        kind = {"format": "JPEG"} if ending == "Jpg" else {}
        save(source / "Images" / f"{name}.{ending}", photo(len(name)), **kind)
        save(source / "MASKS" / f"{name} mask.png", blob())
    (source / "Images" / ".DS_Store").write_bytes(b"x")
    (source / "MASKS" / "._Münze 1 mask.png").write_bytes(b"x")
    converted = convert(plan_images(source))
    assert converted.names("labelsTr") == ["Münze_1.png", "c_v2.png", "图像.png"]
    assert "case names differ" in converted.report


def test_source_with_train_val_and_test(tmp_path, convert):
    for part, seeds in (("train", (0, 1, 2)), ("val", (3,)), ("test", (4, 5))):
        for seed in seeds:
            save(tmp_path / "s" / part / "images" / f"i{seed}.png", photo(seed))
            if seed != 5:
                save(tmp_path / "s" / part / "masks" / f"i{seed}.png", blob())
    converted = convert(plan_images(tmp_path / "s"))
    assert converted.names("imagesTs") == ["i4_0000.png", "i5_0000.png"]
    assert converted.names("labelsTs") == ["i4.png"]
    assert "1 test images have no mask" in converted.report
    splits = json.loads((converted.folder / "splits_final.json").read_text())
    assert splits == [{"train": ["i0", "i1", "i2"], "val": ["i3"]}]
    held_out = convert(plan_images(tmp_path / "s", ImageSettings(Match(val_as="test"))), overwrite=True)
    assert held_out.names("imagesTs") == ["i3_0000.png", "i4_0000.png", "i5_0000.png"]
    assert not (held_out.folder / "splits_final.json").exists()


def test_patterns_and_keys(tmp_path, convert):
    for index in range(3):
        save(tmp_path / "s" / f"pat{index}" / "photo.bmp", photo(index))
        save(tmp_path / "s" / f"pat{index}" / "photo_lesion.png", blob())
    by_folder = ImageSettings(Match(("*/photo.bmp",), masks="*/photo_lesion.png"))
    assert convert(plan_images(tmp_path / "s", by_folder)).names("labelsTr") == [f"pat{i}.png" for i in range(3)]
    by_key = ImageSettings(Match(("**/*",), masks="*/*_lesion.png", image_key=r"pat(\d)/photo"))
    assert convert(plan_images(tmp_path / "s", by_key), overwrite=True).names("labelsTr") == ["0.png", "1.png", "2.png"]


def test_groups_never_come_apart(tmp_path, convert):
    for index in range(20):
        save(tmp_path / "s" / "images" / f"P{index // 2}_{index}.png", photo(index))
        save(tmp_path / "s" / "masks" / f"P{index // 2}_{index}.png", blob())
    converted = convert(plan_images(tmp_path / "s", ImageSettings(Match(group=r"(P\d+)_"), test_fraction=0.2)))
    assert "groups       10, of which 2 in the test set" in converted.report
    sides = [{name.split("_")[0] for name in converted.names(part)} for part in ("imagesTr", "imagesTs")]
    assert not sides[0] & sides[1]
    for fold in json.loads((converted.folder / "splits_final.json").read_text()):
        assert not {name.split("_")[0] for name in fold["train"]} & {name.split("_")[0] for name in fold["val"]}


def test_a_group_on_both_sides_of_the_sources_own_split(tmp_path, inspected):
    for part, index in (("train", 0), ("test", 1)):
        save(tmp_path / part / "images" / f"P7_{index}.png", photo(index))
        save(tmp_path / part / "masks" / f"P7_{index}.png", blob())
    inspection = inspected(plan_images(tmp_path, ImageSettings(Match(group=r"(P\d)_"))))
    assert [(finding.case, finding.detail) for finding in inspection.errors] == [("P7", "test and train")]


def test_an_image_outside_the_group_pattern_is_named(tmp_path, inspected):
    write_images(tmp_path)
    inspection = inspected(plan_images(tmp_path, ImageSettings(Match(group=r"img([012])"))))
    assert [finding.case for finding in inspection.errors] == ["img3"]


def _colour_mask(*colours):
    mask = np.zeros((*blob().shape, 3), np.uint8)
    for index, colour in enumerate(colours):
        mask[2 * index + 1, 1:8] = colour
    return mask


def test_colour_coded_masks(tmp_path, convert):
    for index in range(3):
        save(tmp_path / "s/images" / f"{index}.png", photo(index))
        save(tmp_path / "s/masks" / f"{index}.png", _colour_mask((255, 0, 0), (0, 255, 0), (255, 255, 255))[..., :])
    save(tmp_path / "s/masks/0.png", np.zeros_like(blob()))  # a grey file among coloured ones
    labels = _labels("green=#00ff00", "red=255,0,0", "ignore=#ffffff")
    converted = convert(plan_images(tmp_path / "s", ImageSettings(labels=labels)))
    assert converted.json["labels"] == {"background": 0, "green": 1, "red": 2, "ignore": 3}
    mask = io.imread(converted.folder / "labelsTr/1.png")
    np.testing.assert_array_equal(mask[[1, 3, 5, 7], 1], [2, 1, 3, 0])
    assert io.imread(converted.folder / "labelsTr/0.png").max() == 0


def test_unlisted_colours(tmp_path, inspected, convert):
    write_images(tmp_path / "s")
    save(tmp_path / "s/masks/img1.png", _colour_mask((255, 0, 0), (9, 9, 8)))
    asked = inspected(plan_images(tmp_path / "s"))
    assert "--label background='#000000'" in asked.errors[0].topic
    settings = ImageSettings(labels=_labels("red=#ff0000", "white=#ffffff"))
    (error,) = inspected(plan_images(tmp_path / "s", settings)).errors
    assert (error.case, error.detail) == ("img1", "#090908 (7 pixels)")
    settings = ImageSettings(labels=_labels("red=#ff0000", "white=#ffffff", merge_into_background=True))
    converted = convert(plan_images(tmp_path / "s", settings))
    assert io.imread(converted.folder / "labelsTr/img1.png").sum() == 7


def test_palette_masks_by_index_and_by_colour(tmp_path, convert):
    write_images(tmp_path / "s")
    for index in range(4):
        mask = Image.frombytes("P", (17, 12), blob(2).tobytes())
        mask.putpalette([0, 0, 0, 1, 1, 1, 128, 0, 0])
        mask.save(tmp_path / "s/masks" / f"img{index}.png")
    by_index = convert(plan_images(tmp_path / "s", ImageSettings(labels=_labels("cat=2"))))
    by_colour = convert(plan_images(tmp_path / "s", ImageSettings(labels=_labels("cat=#800000"))), overwrite=True)
    for converted in (by_index, by_colour):
        assert converted.json["labels"] == {"background": 0, "cat": 1}
        np.testing.assert_array_equal(io.imread(by_colour.folder / "labelsTr/img0.png"), blob(1))


def test_sixteen_bit_colour_and_float_become_tiff(tmp_path, convert):
    deep = photo(3).astype(np.uint16) * 200
    (tmp_path / "s/images").mkdir(parents=True)
    for index in range(3):
        sitk.WriteImage(sitk.GetImageFromArray(deep + index, isVector=True), str(tmp_path / f"s/images/{index}.png"))
        save(tmp_path / "s/masks" / f"{index}.png", blob())
    converted = convert(plan_images(tmp_path / "s"))
    assert converted.json["file_ending"] == ".tif"
    np.testing.assert_array_equal(io.imread(converted.folder / "imagesTr/1_0000.tif"), deep + 1)
    for index in range(3):
        (tmp_path / f"s/images/{index}.png").unlink()
        tifffile.imwrite(tmp_path / f"s/images/{index}.tif", photo(index)[..., 0] / np.float32(7))
    converted = convert(plan_images(tmp_path / "s"), overwrite=True)
    assert converted.json["channel_names"] == {"0": "grey"}
    assert io.imread(converted.folder / "imagesTr/1_0000.tif").dtype == np.float32


def test_sixteen_bit_grey_stays_png(tmp_path, convert):
    for index in range(2):
        save(tmp_path / "s/images" / f"{index}.png", photo(index)[..., 0].astype(np.uint16) * 257)
        save(tmp_path / "s/masks" / f"{index}.tif", blob())
    converted = convert(plan_images(tmp_path / "s"))
    assert converted.json["file_ending"] == ".png"
    assert io.imread(converted.folder / "imagesTr/1_0000.png").max() > 255


def test_grey_among_colour(tmp_path, inspected, convert):
    write_images(tmp_path / "s")
    save(tmp_path / "s/images/img1.png", photo(1)[..., 0])
    (error,) = inspected(plan_images(tmp_path / "s")).errors
    assert error.case == "img1"
    assert "--channels" in error.topic
    assert len(convert(plan_images(tmp_path / "s", ImageSettings(channels="rgb"))).json["channel_names"]) == 3
    assert (
        len(convert(plan_images(tmp_path / "s", ImageSettings(channels="grey")), overwrite=True).json["channel_names"])
        == 1
    )


def test_jpeg_masks_need_to_be_told(tmp_path, inspected, convert):
    write_images(tmp_path / "s", 2)
    for index in range(2):
        (tmp_path / f"s/masks/img{index}.png").unlink()
        save(tmp_path / f"s/masks/img{index}.jpg", blob(), quality=60)
    inspection = inspected(plan_images(tmp_path / "s"))
    assert len(inspection.errors) == 1
    assert "mask is a JPEG, which changes label values around edges" in _topics(inspection, "warning")
    converted = convert(plan_images(tmp_path / "s", ImageSettings(labels=LabelRule(threshold=127))))
    assert "not purely 0/255" in converted.report
    np.testing.assert_array_equal(io.imread(converted.folder / "labelsTr/img0.png"), blob(1))


def _marked(path, orientation, pixels):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif)


def test_exif_orientation_is_asked_about(tmp_path, inspected, convert):
    for index in range(2):
        _marked(tmp_path / f"s/images/{index}.png", 6, photo(index))
        save(tmp_path / f"s/masks/{index}.png", np.ascontiguousarray(np.rot90(blob(), -1)))
    assert "--exif apply" in inspected(plan_images(tmp_path / "s")).errors[0].topic
    turned = inspected(plan_images(tmp_path / "s", ImageSettings(exif="ignore"))).errors
    assert "turned by 90 degrees?" in turned[0].detail
    converted = convert(plan_images(tmp_path / "s", ImageSettings(exif="apply")))
    np.testing.assert_array_equal(io.imread(converted.folder / "imagesTr/0_0000.png"), np.rot90(photo(0), -1))
    np.testing.assert_array_equal(io.imread(converted.folder / "labelsTr/0.png"), np.rot90(blob(1), -1))


def test_everything_suspicious_is_reported(tmp_path, inspected):
    write_images(tmp_path, 6)
    save(tmp_path / "masks/img0.png", np.zeros_like(blob()))
    save(tmp_path / "masks/img1.png", np.full_like(blob(), 255))
    save(tmp_path / "images/img3.png", photo(2))
    save(tmp_path / "images/img4.png", np.dstack([photo(4), blob()]))
    save(tmp_path / "masks/stray.png", blob())
    inspection = inspected(plan_images(tmp_path))
    assert not inspection.errors
    report = format_report(inspection)
    for text in ("mask is all background", "mask is all foreground", "the same image several times",
                 "img2 (train), img3 (train)", "partly transparent", "mask without an image", "stray.png"):  # fmt: skip
        assert text in report


def test_duplicates_across_train_and_test(tmp_path, inspected):
    for part, seeds in (("train", (0, 1)), ("test", (1, 2))):
        for seed in seeds:
            save(tmp_path / part / "images" / f"{part}{seed}.png", photo(seed))
            save(tmp_path / part / "masks" / f"{part}{seed}.png", blob())
    inspection = inspected(plan_images(tmp_path))
    assert "the same image in several of train, validation and test" in _topics(inspection, "warning")


@pytest.fixture
def broken(tmp_path):
    """A folder of which four of six cases cannot be used, each for its own reason."""
    write_images(tmp_path / "s", 6)
    save(tmp_path / "s/masks/img0.png", blob(255, 10, 10))
    (tmp_path / "s/images/img1.png").write_bytes(b"\x89PNG\r\n\x1a\n garbage")
    (tmp_path / "s/masks/img2.png").unlink()
    (tmp_path / "s/masks/img3.png").write_bytes(b"")
    return tmp_path / "s"


def test_all_errors_are_reported_at_once(broken, inspected, convert):
    plan = plan_images(broken)
    inspection = inspected(plan)
    assert {finding.case for finding in inspection.errors} == {"img0", "img1", "img2", "img3"}
    report = format_report(inspection)
    for text in (
        "image 12 x 17, mask 10 x 10",
        "cannot be read as an image",
        "training image without a mask",
        "file is empty",
    ):
        assert text in report
    with pytest.raises(ConversionError, match="4 errors"):
        convert(plan)


def test_bad_cases_can_be_left_out(broken, convert):
    converted = convert(plan_images(broken), skip_bad=True)
    assert converted.names("labelsTr") == ["img4.png", "img5.png"]
    assert "4 left out" in converted.report
    assert "left out: training image without a mask" in converted.report


def test_an_image_that_cannot_be_read_is_no_training_case(tmp_path, inspected):
    save(tmp_path / "images/a.png", photo(0)).write_bytes(b"garbage")
    save(tmp_path / "masks/a.png", blob())
    assert "there is no training case" in str(inspected(plan_images(tmp_path), skip_bad=True).errors)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ImageSettings(Match(images=("nowhere",))), "does not exist"),
        (ImageSettings(Match(images=("images",), masks="images")), "same files"),
        (ImageSettings(Match(masks="masks")), "--images"),
        (ImageSettings(Match(test_masks="masks")), "--test-images"),
        (ImageSettings(Match(group="(")), "--group-pattern"),
        (ImageSettings(Match(images=("images",), masks="masks", image_key="(")), "--image-key"),
        (ImageSettings(test_fraction=1.5), "--test-fraction"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, settings, message):
    write_images(tmp_path)
    with pytest.raises(ConversionError, match=message):
        plan_images(tmp_path, settings)


def test_labels_that_do_not_fit(tmp_path):
    write_images(tmp_path)
    with pytest.raises(LabelError, match="twice"):
        plan_images(tmp_path, ImageSettings(labels=_labels("a=1", "a=2")))


@pytest.mark.parametrize("kind", ["absent", "empty", "file", "zip", "no masks"])
def test_sources_that_are_none(tmp_path, kind):
    source = tmp_path / ("data.zip" if kind == "zip" else "data")
    if kind in ("file", "zip"):
        source.write_bytes(b"")
    elif kind == "empty":
        source.mkdir()
    elif kind == "no masks":
        save(source / "images" / "a.png", photo(0))
    with pytest.raises(ConversionError, match=str(source)):
        plan_images(source)
