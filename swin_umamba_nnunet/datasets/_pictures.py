"""2D images and masks as arrays.  Decoding is Pillow's (PNG, JPEG, BMP, GIF), tifffile's and, for 16-bit colour, ITK's.

Pillow alone would do harm silently: it cuts 16-bit colour to 8 bit, so those files go another way.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image

from swin_umamba_nnunet.datasets._labels import interior_and_boundary, raw_values
from swin_umamba_nnunet.datasets._model import CaseError, Content, Findings, SourceCase, decoding

_FORMATS = ("PNG", "JPEG", "BMP", "GIF")
_PLAIN_MODES = ("L", "I;16", "I;16B", "I;16L", "I", "F", "RGB", "LA", "RGBA")  # NumPy has them as they are
_EXIF_ORIENTATION = 0x0112
_TIFF_COLOURS = tuple(tifffile.PHOTOMETRIC[name] for name in ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE", "MASK"))
_GREYS = np.arange(256) * 0x010101  # grey v is the colour v * this


@dataclass(frozen=True)
class Picture:
    """A decoded file.

    Attributes:
        pixels: (H, W) or (H, W, 3); palette indices where there is a palette.
        alpha: (H, W) or None.
        palette: (N, 3) uint8, the colours of the indices, or None.
        lossy: the file is a JPEG, whatever its name says.
        orientation: EXIF's, 1 (as stored) to 8.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    palette: np.ndarray | None = None
    lossy: bool = False
    orientation: int = 1

    @property
    def transparent(self) -> bool:
        """Whether there is an alpha channel with anything in it."""
        return self.alpha is not None and self.alpha.min() != self.alpha.max()


def read_picture(path: Path) -> Picture:
    """Decode a 2D picture.

    Raises:
        CaseError: the file is damaged, empty, no picture, or not two-dimensional.
    """
    with decoding(path, "file cannot be read as an image"):
        with path.open("rb") as file:
            magic = file.read(2)
        if not magic:
            raise CaseError("file is empty", str(path))
        picture = (_read_tiff if magic in (b"II", b"MM") else _read_with_pillow)(path)
    pixels = picture.pixels
    if pixels.size == 0 or pixels.dtype.kind not in "buif":
        raise CaseError("file holds no image of plain numbers", f"{path} ({pixels.dtype})")
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        colours = pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
        picture = replace(picture, pixels=colours, alpha=pixels[..., -1])
    return picture if picture.orientation in range(1, 9) else replace(picture, orientation=1)


def _read_tiff(path: Path) -> Picture:
    with tifffile.TiffFile(path) as file:
        series, page = file.series[0], file.series[0].keyframe
        pixels = series.asarray()
        tag = page.tags.get(_EXIF_ORIENTATION)
        palette = page.colormap if page.photometric == tifffile.PHOTOMETRIC.PALETTE else None
        lossy = page.compression in (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG)
        axes, inverted = series.axes, page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        pages = len(file.series)
        # without one that is marked as alpha, two or four are channels
        samples = (2, 3, 4) if page.photometric == tifffile.PHOTOMETRIC.RGB or any(page.extrasamples) else (3,)
        decoded = lossy and page.photometric == tifffile.PHOTOMETRIC.YCBCR  # becomes RGB
        if page.photometric not in _TIFF_COLOURS and not decoded:  # CMYK would pass for RGBA
            raise ValueError(f"its colours are {page.photometric!r}; save it as RGB or grey")
    kept = [axis for axis, size in zip(axes, pixels.shape) if size > 1 or axis in "YX"]
    pixels = pixels.reshape([size for axis, size in zip(axes, pixels.shape) if size > 1 or axis in "YX"])
    # two or four channels of a microscope are no grey or colour with transparency, which would be dropped
    if pixels.ndim == 3 and pixels.shape[0] in {"S": samples, "C": (3,)}.get(kept[0], ()):
        pixels = np.moveaxis(pixels, 0, -1)
    elif pixels.ndim == 3 and not (kept[2] in "SC" and pixels.shape[2] in samples):
        pages = max(pages, len(pixels))
    if pages > 1 or pixels.ndim > 3:
        raise CaseError(
            "TIFF holds more than one 2D image (a stack, channels, or several pages); `convert volumes` takes volumes, "
            "as NIfTI",
            f"{path} (axes {axes}, shape {pixels.shape}, {pages} images)",
        )
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if inverted and pixels.dtype.kind in "bu":
        pixels = np.iinfo(pixels.dtype).max - pixels
    colours = None if palette is None else (palette.T // 257).astype(np.uint8)
    return Picture(pixels, None, colours, lossy, 1 if tag is None else tag.value)


def _read_with_pillow(path: Path) -> Picture:
    palette = None
    with Image.open(path, formats=_FORMATS) as image:
        if image.format == "GIF" and getattr(image, "is_animated", False):
            raise CaseError("GIF holds more than one image (an animation)", str(path))
        # before anything decodes: "RGB;16B" and the like, which Pillow is going to cut to 8 bit
        stored = str(image.tile[0].args) if image.tile else ""
        deep_colour = image.mode in ("RGB", "RGBA", "LA") and ";16" in stored
        lossy, orientation = image.format in ("JPEG", "MPO"), image.getexif().get(_EXIF_ORIENTATION, 1)
        if deep_colour:
            pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        elif image.mode == "P":
            image.load()
            pixels, palette = np.asarray(image), np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
            if not len(palette):
                raise ValueError("its palette is missing")
        else:
            plain = {"1": "L", "PA": "RGBA", "La": "LA", "RGBa": "RGBA"}.get(image.mode, "RGB")
            pixels = np.asarray(image if image.mode in _PLAIN_MODES else image.convert(plain))
    if pixels.dtype == np.int32 and pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 0xFFFF:
        pixels = pixels.astype(np.uint16)  # 16-bit grey, as some files come out of Pillow
    return Picture(pixels.astype(pixels.dtype.newbyteorder("="), copy=False), None, palette, lossy, orientation)


def oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, ...) as stored -> as EXIF wants it shown; the eight cases of the EXIF standard (tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def image_array(picture: Picture, channels: Literal["rgb", "grey"] | None = None) -> np.ndarray:
    """The picture as an image: (H, W) or (H, W, 3), palette looked up, alpha dropped.

    Args:
        picture: what was read.
        channels: "rgb" makes three of it, "grey" one (ITU-R 601 luma), None leaves it.
    """
    pixels, palette = picture.pixels, picture.palette
    if palette is not None:
        pixels = palette[np.minimum(pixels, len(palette) - 1)]
    if channels == "rgb" and pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    if channels == "grey" and pixels.ndim == 3:
        luma = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        return (luma if pixels.dtype.kind == "f" else np.rint(luma)).astype(pixels.dtype)
    return pixels


def mask_array(picture: Picture, path: Path) -> tuple[np.ndarray, bool, np.ndarray | None]:
    """The picture as a mask: raw values (H, W), whether they are colours, and the colours they stand for (`Content`).

    Raises:
        CaseError: the values are no whole numbers from 0, or the mask hides in the alpha channel.
    """
    pixels = picture.pixels
    values = raw_values(pixels, path, highest=0xFFFFFF)
    if picture.transparent and (pixels == pixels[:1, :1]).all():
        raise CaseError(
            "mask lies in the transparency (alpha) channel only; save it as grey values or colours", str(path)
        )
    if pixels.ndim == 3 and (pixels != pixels[..., :1]).any():
        if pixels.max() > 255:
            raise CaseError("mask is in 16-bit colour; save it as 8-bit colours or as label values", str(path))
        return _pack(values), True, None
    if picture.palette is not None:
        return values, False, _pack(picture.palette.astype(np.int32))
    values = values[..., 0] if pixels.ndim == 3 else values
    return values, False, _GREYS if values.max() <= 255 else None


def _pack(colours: np.ndarray) -> np.ndarray:
    """(..., 3) of at most 255 -> 0xRRGGBB."""
    return colours @ np.array([1 << 16, 1 << 8, 1], np.int32)


def write_picture(pixels: np.ndarray, path: Path) -> None:
    """Write (H, W) or (H, W, 3) without loss as .png (8-bit, or 16-bit grey) or .tif (everything)."""
    pixels = np.ascontiguousarray(pixels)
    if path.suffix == ".png":
        Image.fromarray(pixels).save(path, compress_level=3)
    else:
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", compression="zlib")


def read_pictures(
    case: SourceCase,
    findings: Findings,
    channels: Literal["rgb", "grey"] | None = None,
    exif: Literal["apply", "ignore"] | None = "ignore",
    instances: bool = False,
) -> Content:
    """Read a case of one image file and one mask file.

    Args:
        case: what to read.
        findings: what is odd goes there.
        channels: "rgb" and "grey" make all images alike; None takes them as they are.
        exif: what to do with a camera's orientation mark: "apply" turns image and mask each by its own, "ignore" takes
            the pixels as stored, None makes it an error, because only the user knows how the masks were drawn.
        instances: every value or colour of the mask but 0 is one object, of which an inside and a boundary is made.

    Raises:
        CaseError: the case cannot be converted.
    """
    picture = read_picture(case.images[0])
    turned = picture.orientation != 1
    if turned and exif is None:
        raise CaseError(
            "image is marked to be shown turned or mirrored (EXIF orientation); were the masks drawn on it as shown "
            "(--exif apply) or as stored (--exif ignore)?",
            f"{case.images[0].name} (orientation {picture.orientation})",
        )
    if turned:
        done = "the image was turned by it" if exif == "apply" else "it was ignored"
        topic = f"image has an EXIF orientation mark; {done}"
        findings.warning(topic, f"orientation {picture.orientation}")
    if picture.transparent:
        findings.warning("image is partly transparent; its alpha channel was dropped")
    elif picture.alpha is not None:
        findings.note("image has an alpha channel without content, which was dropped")
    if picture.palette is not None:
        findings.note("image has a palette; its colours were looked up")
    colour = picture.pixels.ndim == 3 or picture.palette is not None
    if channels is not None and colour != (channels == "rgb"):
        findings.note("colour image was made grey" if colour else "grey image was made colour, R = G = B")

    def shown(array: np.ndarray, of: Picture) -> np.ndarray:
        return oriented(array, of.orientation) if exif == "apply" else array

    image = shown(image_array(picture, channels), picture)
    if case.label is None:
        return Content([image])
    mask_picture = read_picture(case.label)
    values, colour, palette = mask_array(mask_picture, case.label)
    values = shown(values, mask_picture)
    if values.shape != image.shape[:2]:
        first, second = (" x ".join(map(str, shape)) for shape in (image.shape[:2], values.shape))
        hint = ", turned by 90 degrees?" if image.shape[:2] == values.shape[::-1] else ""
        raise CaseError("image and mask differ in size (rows x columns)", f"image {first}, mask {second}{hint}")
    if mask_picture.lossy:
        findings.warning("mask is a JPEG, which changes label values around edges", case.label.name)
    if mask_picture.transparent:
        findings.warning("mask is partly transparent; transparency was not looked at", case.label.name)
    content = Content([image], values, colour, palette)
    if not instances:
        return content
    colours = content.colours if content.by_colour else None
    objects = values if colours is None else colours
    return Content([image], interior_and_boundary(objects, findings), instances=objects)
