"""Volumes and their segmentations, read and written by SimpleITK, their geometry compared."""

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from swin_umamba_nnunet import _volume_files
from swin_umamba_nnunet.datasets import _dicom, _files
from swin_umamba_nnunet.datasets._labels import LabelMap
from swin_umamba_nnunet.datasets._model import Case, CaseError, Finding, Measured, decoding
from swin_umamba_nnunet.datasets._picture_cases import count_values, digest_of

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl")
FILE_ENDING = ".nii.gz"
GEOMETRY_TOLERANCE = 0.1  # of the smallest spacing: less displaces no voxel
MOVED = "mask was moved to the image's place (--trust-image-geometry)"
NOT_FINITE = (
    "values are not finite (NaN or infinite); replace them by what they stand for: in an image usually the value of "
    "air, in a mask a label"
)
UNREADABLE = "file cannot be read as a volume"
UNNAMED = "image"
CT_AIR = -500  # Hounsfield units; nothing else in the clinic is stored with such values


def list_volumes(base: Path, endings: tuple[str, ...], pattern: str = _files.EVERYTHING) -> list[Path]:
    """Volume files, and folders that are DICOM series; sorted, nothing hidden."""
    files = _files.list_files(base, endings, pattern)
    folders = [path for path in base.glob(pattern) if path.is_dir() and not _files.is_hidden(path, base)]
    if pattern == _files.EVERYTHING:
        folders.append(base)
    series = {folder for folder in folders if _dicom.holds_dicom(folder)}
    return sorted([*series, *(path for path in files if path.parent not in series)])


@dataclass(frozen=True)
class VolumeCases:
    """Reads and writes cases of one volume per channel and one segmentation.

    Attributes:
        channels: names of the channels; nnU-Net normalises "CT" by the dataset's Hounsfield units, all else per image.
        trust_image: where a mask has the image's size and another place in space, take the image's instead of refusing.
        threads: volumes are large, so few at a time.
    """

    channels: tuple[str, ...] = (UNNAMED,)
    trust_image: bool = False
    threads: int = 2

    def measure(self, case: Case) -> Measured:
        """See `Handler`."""
        _compare_headers(case)
        volumes, findings = self._images(case)
        first = volumes[0]
        arrays = [sitk.GetArrayViewFromImage(volume) for volume in volumes]
        for path, array in zip(case.images, arrays):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise CaseError(NOT_FINITE, str(path))
        if self.channels == (UNNAMED,) and arrays[0].min() < CT_AIR:
            findings.append(Finding("warning", "values look like CT (Hounsfield units): --modality CT lets nnU-Net "
                                    "normalise them so", f"from {arrays[0].min():g}", case.name))  # fmt: skip
        if all(value == 1 for value in first.GetSpacing()):
            findings.append(
                Finding("note", "spacing is exactly 1 mm along all axes: true, or never stored?", case=case.name)
            )
        values = None
        if case.label is not None:
            mask, noticed = self._mask(case, first)
            findings += noticed
            values = count_values(mask)
        digest = digest_of(np.ascontiguousarray(arrays[0]))
        return Measured(
            shape=tuple(reversed(first.GetSize())),
            channels=len(volumes),
            dtype=str(arrays[0].dtype),
            digest=digest,
            values=values,
            spacing=tuple(reversed(first.GetSpacing())),
            findings=tuple(replace(finding, case=case.name) for finding in findings),
        )

    def _images(self, case: Case) -> tuple[list[sitk.Image], list[Finding]]:
        volumes, findings = [], []
        for path in case.images:
            volume, noticed = read_volume(path)
            volumes.append(volume)
            findings += noticed
        for path, volume in zip(case.images[1:], volumes[1:]):
            offset = _compare(volumes[0], volume, f"{case.images[0].name} and {path.name}", "channels")
            if offset > GEOMETRY_TOLERANCE * min(volumes[0].GetSpacing()):
                raise CaseError("channels lie at different places in space (register and resample them first)",
                                f"{case.images[0].name} and {path.name}, up to {offset:.3g} mm apart")  # fmt: skip
            volume.CopyInformation(volumes[0])
        return volumes, findings

    def _mask(self, case: Case, image: sitk.Image) -> tuple[np.ndarray, list[Finding]]:
        assert case.label is not None
        mask, findings = read_volume(case.label)
        offset = _compare(image, mask, case.label.name, "image and mask")
        if offset > GEOMETRY_TOLERANCE * min(image.GetSpacing()):
            detail = f"{case.label.name}, up to {offset:.3g} mm apart ({_differences(image, mask)})"
            if not self.trust_image:
                raise CaseError(
                    "image and mask lie at different places in space; if voxels correspond nevertheless, "
                    "--trust-image-geometry takes the image's place",
                    detail,
                )
            findings.append(Finding("warning", MOVED, detail))
        array = sitk.GetArrayFromImage(mask)
        if array.dtype.kind == "f":
            if not np.isfinite(array).all() or (array != np.rint(array)).any():
                raise CaseError("mask values are no whole numbers (probabilities, or resampled?)", str(case.label))
            array = array.astype(np.int64)
        if array.min() < 0 or array.max() > 1 << 20:
            raise CaseError("mask values are negative or too large for labels",
                            f"{case.label} ({array.min()} to {array.max()})")  # fmt: skip
        return array, findings

    def write(self, case: Case, images: Path, labels: Path, encode: LabelMap, file_ending: str) -> None:
        """See `Handler`."""
        volumes, _ = self._images(case)
        for channel, volume in enumerate(volumes):
            write_volume(volume, images / f"{case.name}_{channel:04d}{file_ending}")
        if case.label is not None:
            mask, _ = self._mask(case, volumes[0])
            encoded = sitk.GetImageFromArray(encode.encode(mask))
            encoded.CopyInformation(volumes[0])
            write_volume(encoded, labels / f"{case.name}{file_ending}")

    def file_ending(self, measured: Iterable[Measured]) -> str:
        """Compressed NIfTI, which everything reads."""
        return FILE_ENDING

    def channel_names(self, channels: int) -> tuple[str, ...]:
        """As the user named them."""
        return self.channels

    def finish(self, folder: Path) -> None:
        """Nothing more to write."""


def read_volume(path: Path) -> tuple[sitk.Image, list[Finding]]:
    """Read a volume file or a folder with one DICOM series: one channel, 3D or 2D, numbers of 32 bit at most.

    Raises:
        CaseError: damaged, not finite where ITK would hide it, several channels or time points, or no single series.
    """
    findings: list[Finding] = []
    if path.is_dir():
        image, findings = _dicom.read_series(path)
    else:
        header = _header(path)
        try:
            with decoding(path, UNREADABLE):
                _volume_files.require_whole(header)
        except CaseError as error:
            if isinstance(error.__cause__, _volume_files.NotFiniteError):
                raise CaseError(NOT_FINITE, error.detail) from error
            raise
        try:
            image = sitk.ReadImage(str(path), imageIO=header.image_io)
        except RuntimeError as error:
            raise CaseError(UNREADABLE, f"{path} ({itk_reason(error)})") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        kind = f"{image.GetNumberOfComponentsPerPixel()} values per voxel"
        raise CaseError(
            "volume has several values per voxel (RGB or vectors); one volume per channel is needed", f"{path} ({kind})"
        )
    if image.GetDimension() not in (2, 3):
        raise CaseError("volume has more than three axes (time, or channels); save one volume each",
                        f"{path} ({' x '.join(map(str, image.GetSize()))})")  # fmt: skip
    if image.GetPixelID() == sitk.sitkFloat64:
        image = sitk.Cast(image, sitk.sitkFloat32)
    elif image.GetPixelID() in (sitk.sitkInt64, sitk.sitkUInt64):
        extent = sitk.GetArrayViewFromImage(image)
        if extent.min() < -(1 << 31) or extent.max() >= 1 << 31:
            raise CaseError("values are too large for 32-bit numbers", str(path))
        image = sitk.Cast(image, sitk.sitkInt32)
    return image, findings


def _header(path: Path) -> _volume_files.VolumeHeader:
    with decoding(path, UNREADABLE):
        header = _volume_files.read_header(path)
        assert header is not None, f"none of {VOLUME_ENDINGS}"
    return header


def _compare_headers(case: Case) -> None:
    """See whether the files of a case declare the same size, before gigabytes are read of one that does not fit.

    Raises:
        CaseError: they do not; or a file is damaged.
    """
    shapes: dict[Path, tuple[int, ...]] = {}
    for path in (*case.images, *([case.label] if case.label else [])):
        if path.is_file():
            shape = _header(path).shape
            if len(shape) <= 3:  # what has more axes is refused for that
                shapes[path] = shape
    for path, shape in shapes.items():
        first = next(iter(shapes))
        if shape != shapes[first]:
            what = "image and mask" if path == case.label else "channels"
            raise _differ(what, f"{first.name} and {path.name}", shapes[first], shape)


def _differ(what: str, names: str, first: Iterable[int], second: Iterable[int]) -> CaseError:
    sizes = [" x ".join(map(str, shape)) for shape in (first, second)]
    return CaseError(f"{what} differ in size (slices x rows x columns)", f"{names}: {sizes[0]} and {sizes[1]}")


def write_volume(image: sitk.Image, path: Path) -> None:
    """Write without the source's further header entries, which may name a patient.

    Raises:
        OSError: the file cannot be written, or the disk is full.
    """
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    try:
        sitk.WriteImage(image, str(path), True)
        # ITK does not notice that a disk is full: half a file is left, and no error
        _volume_files.require_whole(_header(path), finite=False)
    except RuntimeError as error:
        raise OSError(errno.EIO, itk_reason(error), str(path)) from error
    except (CaseError, _volume_files.VolumeFileError) as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def itk_reason(error: RuntimeError) -> str:
    """The last line of an ITK message, which is the one that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else "no reason given")[:200]


def _compare(first: sitk.Image, second: sitk.Image, names: str, what: str) -> float:
    """Largest distance in mm between where two images have the same corner voxel.

    Raises:
        CaseError: they differ in size.
    """
    if first.GetSize() != second.GetSize():
        raise _differ(what, names, reversed(first.GetSize()), reversed(second.GetSize()))
    corners = product(*((0, size - 1) for size in first.GetSize()))
    places = [
        [np.array(image.TransformIndexToPhysicalPoint(corner)) for image in (first, second)] for corner in corners
    ]
    return float(max(np.linalg.norm(a - b) for a, b in places))


def _differences(first: sitk.Image, second: sitk.Image) -> str:
    parts = []
    for name, a, b in (
        ("origin", first.GetOrigin(), second.GetOrigin()),
        ("spacing", first.GetSpacing(), second.GetSpacing()),
        ("direction", first.GetDirection(), second.GetDirection()),
    ):
        if not np.allclose(a, b, rtol=1e-4, atol=1e-4):
            parts.append(f"{name} {_numbers(a)} and {_numbers(b)}")
    return "; ".join(parts) or "small differences that add up"


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
