"""Cases made of one 2D image file and one mask file, for the layouts `images` and `isic`."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from swin_umamba_nnunet.datasets._labels import LabelMap
from swin_umamba_nnunet.datasets._model import Case, CaseError, Finding, Measured
from swin_umamba_nnunet.datasets._pictures import (
    Picture,
    RawMask,
    image_array,
    mask_array,
    oriented,
    read_picture,
    write_picture,
)

COLOUR_CHANNELS = ("R", "G", "B")


def digest_of(array: np.ndarray) -> str:
    """Hash of an array's numbers, type and shape."""
    digest = hashlib.blake2b(f"{array.dtype} {array.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def count_values(array: np.ndarray) -> dict[int, int]:
    """Value -> how often, of an integer array."""
    if array.size and array.min() >= 0 and array.max() < 1 << 16:
        counts = np.bincount(array.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, numbers = np.unique(array, return_counts=True)
    return {int(value): int(number) for value, number in zip(values, numbers)}


@dataclass(frozen=True)
class PictureCases:
    """Reads and writes them.

    Attributes:
        channels: "rgb" and "grey" make all images alike; None takes them as they are.
        exif: what to do with a camera's orientation mark: "apply" turns image and mask each by its own, "ignore" takes
            the pixels as stored, None makes it an error, because only the user knows how the masks were drawn.
    """

    channels: Literal["rgb", "grey"] | None = None
    exif: Literal["apply", "ignore"] | None = None
    threads: int = 8

    def _image(self, path: Path) -> tuple[np.ndarray, Picture]:
        picture = read_picture(path)
        pixels = image_array(picture, None if self.channels is None else self.channels == "rgb")
        if self.exif == "apply":
            pixels = oriented(pixels, picture.orientation)
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise CaseError("image has values that are not finite (NaN or infinite)", str(path))
        return pixels, picture

    def _mask(self, path: Path) -> tuple[RawMask, Picture]:
        picture = read_picture(path)
        mask = mask_array(picture, path)
        if self.exif == "apply" and picture.orientation != 1:
            colours = None if mask.colours is None else oriented(mask.colours, picture.orientation)
            mask = RawMask(oriented(mask.values, picture.orientation), colours, mask.colour)
        return mask, picture

    def measure(self, case: Case) -> Measured:
        """See `Handler`."""
        pixels, picture = self._image(case.images[0])
        findings = self._notice(case, picture)
        values = colours = None
        colour = False
        if case.label is not None:
            mask, mask_picture = self._mask(case.label)
            if mask.values.shape != pixels.shape[:2]:
                raise CaseError(
                    "image and mask differ in size (rows x columns)", _sizes(pixels.shape, mask.values.shape)
                )
            values, colour = count_values(mask.values), mask.colour
            if mask.colours is not None:
                colours = values if colour else _by_colour(mask, mask_picture, values)
            if mask_picture.lossy:
                findings.append(Finding("warning", "mask is a JPEG, which changes label values around edges",
                                        case.label.name, case.name))  # fmt: skip
            if mask_picture.alpha is not None and mask_picture.alpha.min() != mask_picture.alpha.max():
                findings.append(Finding("warning", "mask is partly transparent; transparency was not looked at",
                                        case.label.name, case.name))  # fmt: skip
        return Measured(
            shape=pixels.shape[:2],
            channels=1 if pixels.ndim == 2 else pixels.shape[2],
            dtype=str(pixels.dtype),
            digest=digest_of(pixels),
            values=values,
            colours=colours,
            colour=colour,
            findings=tuple(findings),
        )

    def _notice(self, case: Case, picture: Picture) -> list[Finding]:
        findings = []
        if picture.orientation != 1:
            if self.exif is None:
                raise CaseError(
                    "image is marked to be shown turned or mirrored (EXIF orientation); were the masks drawn on it as "
                    "shown (--exif apply) or as stored (--exif ignore)?",
                    f"{case.images[0].name} (orientation {picture.orientation})",
                )
            findings.append(Finding("warning", f"image has an EXIF orientation mark (--exif {self.exif})",
                                    f"orientation {picture.orientation}", case.name))  # fmt: skip
        if picture.alpha is not None and picture.alpha.min() != picture.alpha.max():
            findings.append(
                Finding("warning", "image is partly transparent; its alpha channel was dropped", case=case.name)
            )
        elif picture.alpha is not None:
            findings.append(
                Finding("note", "image has an alpha channel without content, which was dropped", case=case.name)
            )
        if picture.palette is not None:
            findings.append(Finding("note", "image has a palette; its colours were looked up", case=case.name))
        if self.channels == "grey" and picture.pixels.ndim == 3:
            findings.append(Finding("note", "colour image was made grey (--channels grey)", case=case.name))
        return findings

    def write(self, case: Case, images: Path, labels: Path, encode: LabelMap, file_ending: str) -> None:
        """See `Handler`."""
        pixels, _ = self._image(case.images[0])
        write_picture(images / f"{case.name}_0000{file_ending}", pixels)
        if case.label is not None:
            mask, _ = self._mask(case.label)
            raw = mask.colours if encode.colour and mask.colours is not None else mask.values
            write_picture(labels / f"{case.name}{file_ending}", encode.encode(raw))

    def file_ending(self, measured: Iterable[Measured]) -> str:
        """PNG where it can hold the numbers, else TIFF: PNG has no floats, and Pillow writes no 16-bit colour."""
        fits = all(m.dtype == "uint8" or (m.dtype == "uint16" and m.channels == 1) for m in measured)
        return ".png" if fits else ".tif"

    def channel_names(self, channels: int) -> tuple[str, ...]:
        """R, G, B or grey: nnU-Net normalises each by its own mean and standard deviation."""
        return COLOUR_CHANNELS if channels == 3 else ("grey",)

    def finish(self, folder: Path) -> None:
        """Nothing more to write."""


def _by_colour(mask: RawMask, picture: Picture, values: dict[int, int]) -> dict[int, int]:
    if picture.palette is None:
        return {value * 0x010101: pixels for value, pixels in values.items()}
    assert mask.colours is not None
    return count_values(mask.colours)


def _sizes(image: tuple[int, ...], mask: tuple[int, ...]) -> str:
    turned = ", turned by 90 degrees?" if image[:2] == mask[1::-1] else ""
    return f"image {image[0]} x {image[1]}, mask {mask[0]} x {mask[1]}{turned}"
