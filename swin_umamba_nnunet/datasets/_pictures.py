"""2D images and masks as arrays.  Decoding is Pillow's (PNG, JPEG, BMP), tifffile's and, for 16-bit colour, ITK's.

Pillow alone would do harm silently: it cuts 16-bit colour to 8 bit, so those files go another way.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image

from swin_umamba_nnunet.datasets._model import CaseError, decoding

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "BMP")
_PLAIN_MODES = ("L", "I;16", "I;16B", "I;16L", "I", "F", "RGB", "LA", "RGBA")  # NumPy has them as they are
_EXIF_ORIENTATION = 0x0112
GREY_AS_COLOUR = 0x010101  # grey v is the colour v * this


@dataclass(frozen=True)
class Picture:
    """A decoded file.

    Attributes:
        pixels: (H, W) or (H, W, 3); palette indices where there is a palette.
        alpha: (H, W) or None.
        palette: (N, 3) uint8, the colours of the indices, or None.
        lossy: the file is a JPEG, whatever its name says.
        orientation: EXIF's, 1 (as stored) to 8.
        format: of the content, for example "PNG".
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    palette: np.ndarray | None = None
    lossy: bool = False
    orientation: int = 1
    format: str = ""


def read_picture(path: Path) -> Picture:
    """Decode a 2D picture.

    Raises:
        CaseError: the file is damaged, empty, no picture, or not two-dimensional.
    """
    with decoding(path, "file cannot be read as an image"):
        if path.stat().st_size == 0:
            raise CaseError("file is empty", str(path))
        picture = _read_tiff(path) if _is_tiff(path) else _read_with_pillow(path)
    if picture.pixels.size == 0 or picture.pixels.dtype.kind not in "buif":
        raise CaseError("file holds no image of plain numbers", f"{path} ({picture.pixels.dtype})")
    return picture


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in (b"II", b"MM")


def _read_tiff(path: Path) -> Picture:
    with tifffile.TiffFile(path) as file:
        series, page = file.series[0], file.series[0].keyframe
        pixels = series.asarray()
        tag = page.tags.get(_EXIF_ORIENTATION)
        palette = page.colormap if page.photometric == tifffile.PHOTOMETRIC.PALETTE else None
        lossy = page.compression in (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG)
        axes, inverted = series.axes, page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        pages = len(file.series)
    kept = [axis for axis, size in zip(axes, pixels.shape) if size > 1 or axis in "YX"]
    pixels = pixels.reshape([size for axis, size in zip(axes, pixels.shape) if size > 1 or axis in "YX"])
    if pixels.ndim == 3 and kept[0] in "SC" and pixels.shape[0] in (2, 3, 4):
        pixels = np.moveaxis(pixels, 0, -1)
    elif pixels.ndim == 3 and not (kept[2] in "SC" and pixels.shape[2] in (2, 3, 4)):
        pages = max(pages, len(pixels))
    if pages > 1 or pixels.ndim > 3:
        raise CaseError(
            "TIFF holds more than one 2D image (a stack, or several pages); `convert volumes` takes volumes, as NIfTI",
            f"{path} (axes {axes}, shape {pixels.shape}, {pages} images)",
        )
    if inverted and pixels.dtype.kind in "bu":
        pixels = ~pixels if pixels.dtype == bool else np.iinfo(pixels.dtype).max - pixels
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    colours = None if palette is None else (palette.T // 257).astype(np.uint8)
    orientation = int(tag.value) if tag is not None and tag.value in range(1, 9) else 1
    return _split_alpha(pixels, colours, lossy, orientation, "TIFF")


def _read_with_pillow(path: Path) -> Picture:
    with Image.open(path, formats=_FORMATS) as image:
        # before anything decodes: "RGB;16B" and the like, which Pillow is going to cut to 8 bit
        stored = str(image.tile[0].args) if image.tile else ""
        deep_colour = image.mode in ("RGB", "RGBA", "LA") and ";16" in stored
        lossy, kind = image.format in ("JPEG", "MPO"), str(image.format)
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        orientation = int(orientation) if orientation in range(1, 9) else 1
        if not deep_colour:
            pixels, palette = _pillow_pixels(image)
            return _split_alpha(pixels, palette, lossy, orientation, kind)
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return _split_alpha(pixels, None, lossy, orientation, kind)


def _pillow_pixels(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels, and the palette where they are its indices."""
    if image.mode == "P":
        image.load()
        return np.asarray(image), np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    if image.mode not in _PLAIN_MODES:
        image = image.convert({"1": "L", "PA": "RGBA", "La": "LA", "RGBa": "RGBA"}.get(image.mode, "RGB"))
    pixels = np.asarray(image)
    if pixels.dtype == np.int32 and pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 0xFFFF:
        pixels = pixels.astype(np.uint16)  # 16-bit grey, as some files come out of Pillow
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False), None


def _split_alpha(pixels: np.ndarray, palette: np.ndarray | None, lossy: bool, orientation: int, kind: str) -> Picture:
    alpha = None
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        pixels, alpha = pixels[..., :-1], pixels[..., -1]
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    return Picture(pixels, alpha, palette, lossy, orientation, kind)


def oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, ...) as stored -> as EXIF wants it shown; the eight cases of the EXIF standard (tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def image_array(picture: Picture, colour: bool | None = None) -> np.ndarray:
    """The picture as an image: (H, W) or (H, W, 3), palette looked up, alpha dropped.

    Args:
        picture: what was read.
        colour: True makes three channels of it, False one (ITU-R 601 luma), None leaves it.
    """
    pixels = (
        picture.pixels
        if picture.palette is None
        else picture.palette[np.minimum(picture.pixels, len(picture.palette) - 1)]
    )
    if colour and pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    if colour is False and pixels.ndim == 3:
        luma = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        return luma.astype(pixels.dtype) if pixels.dtype.kind == "f" else np.rint(luma).astype(pixels.dtype)
    return pixels


@dataclass(frozen=True)
class RawMask:
    """Raw mask values (H, W), see `_labels`.  `colours` are the same pixels as 0xRRGGBB; None beyond 8 bit."""

    values: np.ndarray
    colours: np.ndarray | None
    colour: bool


def mask_array(picture: Picture, path: Path) -> RawMask:
    """The picture as a mask.

    Raises:
        CaseError: the values are no whole numbers from 0, or the mask hides in the alpha channel.
    """
    pixels, alpha = picture.pixels, picture.alpha
    if pixels.dtype.kind == "f" and (not np.isfinite(pixels).all() or (pixels != np.rint(pixels)).any()):
        raise CaseError("mask values are no whole numbers", str(path))
    if pixels.min() < 0 or pixels.max() > 0xFFFFFF:
        raise CaseError("mask values are negative or too large", f"{path} ({pixels.min()} to {pixels.max()})")
    if alpha is not None and alpha.min() != alpha.max() and (pixels == pixels.reshape(-1, *pixels.shape[2:])[0]).all():
        raise CaseError(
            "mask lies in the transparency (alpha) channel only; save it as grey values or colours", str(path)
        )
    if pixels.ndim == 2:
        values = pixels.astype(np.int32)
        if picture.palette is None:
            return RawMask(values, values * GREY_AS_COLOUR if values.max() <= 255 else None, colour=False)
        palette = _pack(picture.palette)
        return RawMask(values, palette[np.minimum(values, len(palette) - 1)], colour=False)
    if (pixels == pixels[..., :1]).all():
        values = pixels[..., 0].astype(np.int32)
        return RawMask(values, values * GREY_AS_COLOUR if values.max() <= 255 else None, colour=False)
    if pixels.max() > 255:
        raise CaseError("mask is in 16-bit colour; save it as 8-bit colours or as label values", str(path))
    packed = _pack(pixels)
    return RawMask(packed, packed, colour=True)


def _pack(colours: np.ndarray) -> np.ndarray:
    """(..., 3) of at most 255 -> 0xRRGGBB, int32."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W) or (H, W, 3) without loss as .png (8-bit, or 16-bit grey) or .tif (everything)."""
    if path.suffix == ".png":
        Image.fromarray(np.ascontiguousarray(pixels)).save(path, compress_level=3)
    else:
        photometric = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(path, np.ascontiguousarray(pixels), photometric=photometric, compression="zlib")
