"""Decoding: every kind of file gives the numbers that were stored in it."""

import io

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

from swin_umamba_nnunet.datasets._model import CaseError
from swin_umamba_nnunet.datasets._pictures import (
    image_array,
    mask_array,
    oriented,
    read_picture,
)
from tests.datasets.trees import blob, photo, save
from tests.messages import raises


def assert_image(path, array):
    assert_array_equal(image_array(read_picture(path)), array)


def test_alpha_is_split_off(tmp_path):
    rgba = np.dstack([photo(1), blob()])
    picture = read_picture(save(tmp_path / "a.png", rgba))
    assert_array_equal(image_array(picture), rgba[..., :3])
    assert_array_equal(picture.alpha, blob())
    grey = Image.fromarray(rgba[..., 0]).convert("LA")
    grey.save(tmp_path / "b.png")
    assert read_picture(tmp_path / "b.png").pixels.ndim == 2


def test_tiff_palette_and_planes(tmp_path):
    colormap = np.zeros((3, 256), np.uint16)
    colormap[:, 2] = 65535, 32896, 0
    tifffile.imwrite(tmp_path / "p.tif", blob(2), photometric="palette", colormap=colormap)
    assert_array_equal(image_array(read_picture(tmp_path / "p.tif"))[3, 4], [255, 128, 0])
    planes = np.moveaxis(photo(1), -1, 0)
    tifffile.imwrite(tmp_path / "s.tif", planes, photometric="rgb", planarconfig="separate")
    assert_image(tmp_path / "s.tif", photo(1))
    tifffile.imwrite(tmp_path / "w.tif", 255 - photo(1)[..., 0], photometric="miniswhite")
    assert_image(tmp_path / "w.tif", photo(1)[..., 0])


def test_one_bit_and_lossy(tmp_path):
    Image.fromarray(blob()).convert("1").save(tmp_path / "one.png")
    assert_array_equal(read_picture(tmp_path / "one.png").pixels, blob())
    assert not read_picture(tmp_path / "one.png").lossy
    save(tmp_path / "really_a_jpeg.png", blob(), format="JPEG")
    assert read_picture(tmp_path / "really_a_jpeg.png").lossy


def test_cmyk_becomes_colour_or_is_refused(tmp_path):
    for name in ("a.jpg", "a.tif"):
        Image.fromarray(photo(1)).convert("CMYK").save(tmp_path / name, compression="jpeg")
    assert read_picture(tmp_path / "a.jpg").pixels.shape == photo(1).shape
    with raises(CaseError, tmp_path / "a.tif", "SEPARATED", "RGB"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_pillows(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = io.BytesIO()
    Image.fromarray(photo(3)).save(stored, "PNG", exif=exif)
    stored.seek(0)
    with Image.open(stored) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert_array_equal(oriented(photo(3), orientation), expected)


def test_grey_masks_saved_as_colour(tmp_path):
    mask, colour, *_ = mask_array(read_picture(save(tmp_path / "g.png", np.dstack([blob()] * 3))), tmp_path)
    assert_array_equal(mask, blob())
    assert not colour


def test_a_mask_in_the_alpha_channel_is_refused(tmp_path):
    path = save(tmp_path / "a.png", np.dstack([np.zeros((*blob().shape, 3), np.uint8), blob()]))
    with raises(CaseError, "alpha"):
        mask_array(read_picture(path), path)


@pytest.mark.parametrize("value", [0.5, np.nan, -1.0, 2.0**25])
def test_odd_mask_numbers_are_refused(tmp_path, value):
    tifffile.imwrite(tmp_path / "m.tif", np.full((4, 5), value, np.float32))
    with raises(CaseError, "mask values"):
        mask_array(read_picture(tmp_path / "m.tif"), tmp_path / "m.tif")


def test_a_lost_palette_is_told(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(blob(1)).convert("P").save(path)
    before, after = path.read_bytes().split(b"PLTE")
    path.write_bytes(before[:-4] + after[int.from_bytes(before[-4:], "big") + 4 :])
    with raises(CaseError, path, "palette"):
        read_picture(path)


def test_stacks_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((5, 20, 30), np.uint8))
    tifffile.imwrite(tmp_path / "channels.tif", np.zeros((4, 20, 30), np.uint8), imagej=True, metadata={"axes": "CYX"})
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        writer.write(np.zeros((20, 30), np.uint8))
        writer.write(np.zeros((9, 9), np.uint8))
    for name in ("stack.tif", "pages.tif", "channels.tif"):
        with raises(CaseError, "more than one 2D image"):
            read_picture(tmp_path / name)
    save(tmp_path / "moving.gif", blob(), save_all=True, append_images=[Image.fromarray(blob()[::-1].copy())])
    with raises(CaseError, "more than one image"):
        read_picture(tmp_path / "moving.gif")
