"""Volumes and their segmentations, read and written by SimpleITK, their geometry compared."""

import errno
import os
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from swin_umamba_nnunet import _volume_files
from swin_umamba_nnunet._text import by
from swin_umamba_nnunet.datasets import _dicom, _files
from swin_umamba_nnunet.datasets._labels import raw_values
from swin_umamba_nnunet.datasets._model import NOT_FINITE, CaseError, Content, Findings, SourceCase, decoding

GEOMETRY_TOLERANCE = 0.1  # of the smallest spacing: less displaces no voxel
UNREADABLE = "file cannot be read as a volume"
CT_AIR = -500  # Hounsfield units; nothing else in the clinic is stored with such values


def list_volumes(base: Path, endings: tuple[str, ...], pattern: str) -> list[Path]:
    """Volume files, and folders that are DICOM series; sorted, nothing hidden."""
    found = _files.entries(base, pattern)
    folders = [base, *found] if pattern == _files.EVERYTHING else found
    series = {folder for folder in folders if folder.is_dir() and _dicom.holds_dicom(folder)}
    files = (path for path in found if _files.ending_of(path, endings) and not path.is_dir())
    return sorted([*series, *(path for path in files if path.parent not in series)])


def read_volumes(case: SourceCase, findings: Findings, moved: str = "", guess_ct: bool = False) -> Content:
    """Read a case of one volume per channel and one segmentation.

    Args:
        case: what to read.
        findings: what is odd goes there.
        moved: what to say where a mask has the image's size and another place in space, and takes the image's; "":
            such a mask is refused.
        guess_ct: say so where values look like Hounsfield units.

    Raises:
        CaseError: the case cannot be converted.
    """
    _compare_headers(case)
    first, *others = volumes = [read_volume(path, findings) for path in case.images]
    tolerance = GEOMETRY_TOLERANCE * min(first.GetSpacing())
    for path, volume in zip(case.images[1:], others):
        names = f"{case.images[0].name} and {path.name}"
        offset = _compare(first, volume, names, "channels")
        if offset > tolerance:
            topic = "channels lie at different places in space (register and resample them first)"
            raise CaseError(topic, f"{names}, up to {offset:.3g} mm apart")
    arrays = [sitk.GetArrayViewFromImage(volume) for volume in volumes]
    if guess_ct and arrays[0].min() < CT_AIR:
        topic = "values look like CT (Hounsfield units): --modality CT lets nnU-Net normalise them so"
        findings.warning(topic, f"from {arrays[0].min():g}")
    if set(first.GetSpacing()) == {1}:
        findings.note("spacing is exactly 1 mm along all axes: true, or never stored?")
    if case.label is None:
        return Content(arrays, volumes=volumes)
    mask = read_volume(case.label, findings)
    offset = _compare(first, mask, case.label.name, "image and mask")
    if offset > tolerance:
        detail = f"{case.label.name}, up to {offset:.3g} mm apart ({_differences(first, mask)})"
        if not moved:
            raise CaseError(
                "image and mask lie at different places in space; if voxels correspond nevertheless, "
                "--trust-image-geometry takes the image's place",
                detail,
            )
        findings.warning(moved, detail)
    return Content(arrays, raw_values(sitk.GetArrayViewFromImage(mask), case.label), volumes=volumes)


def read_volume(path: Path, findings: Findings) -> sitk.Image:
    """Read a volume file or a folder with one DICOM series: one channel, 3D or 2D, numbers of 32 bit at most.

    Raises:
        CaseError: damaged, not finite where ITK would hide it, several channels or time points, or no single series.
    """
    if path.is_dir():
        image = _dicom.read_series(path, findings)
    else:
        with decoding(path, UNREADABLE):
            header = _header(path)
            try:
                _volume_files.require_whole(header)
            except _volume_files.NotFiniteError as error:
                raise CaseError(NOT_FINITE, f"{path} ({error})") from error
            image = sitk.ReadImage(str(path), imageIO=header.image_io)
    if (values := image.GetNumberOfComponentsPerPixel()) != 1:
        topic = "volume has several values per voxel (RGB or vectors); one volume per channel is needed"
        raise CaseError(topic, f"{path} ({values} values per voxel)")
    if image.GetDimension() not in (2, 3):
        topic = "volume has more than three axes (time, or channels); save one volume each"
        raise CaseError(topic, f"{path} ({by(image.GetSize())})")
    if image.GetPixelID() == sitk.sitkFloat64:
        image = sitk.Cast(image, sitk.sitkFloat32)
    elif image.GetPixelID() in (sitk.sitkInt64, sitk.sitkUInt64):
        extent = sitk.GetArrayViewFromImage(image)
        if extent.min() < -(1 << 31) or extent.max() >= 1 << 31:
            raise CaseError("values are too large for 32-bit numbers", str(path))
        image = sitk.Cast(image, sitk.sitkInt32)
    return image


def _header(path: Path) -> _volume_files.VolumeHeader:
    header = _volume_files.read_header(path)
    assert header is not None, f"none of {_files.VOLUME_ENDINGS}"
    return header


def _compare_headers(case: SourceCase) -> None:
    """See whether the files of a case declare the same size, before gigabytes are read of one that does not fit.

    Raises:
        CaseError: they do not; or a file is damaged.
    """
    first: tuple[Path, tuple[int, ...]] | None = None
    for path in (*case.images, *([case.label] if case.label else [])):
        if not path.is_file():
            continue
        with decoding(path, UNREADABLE):
            shape = _header(path).shape
        if len(shape) > 3:  # what has more axes is refused for that
            continue
        first = first or (path, shape)
        if shape != first[1]:
            what = "image and mask" if path == case.label else "channels"
            raise _differ(what, f"{first[0].name} and {path.name}", first[1], shape)


def _differ(what: str, names: str, first: Iterable[int], second: Iterable[int]) -> CaseError:
    return CaseError(f"{what} differ in size (slices x rows x columns)", f"{names}: {by(first)} and {by(second)}")


def write_volume(volume: sitk.Image | np.ndarray, path: Path, place: Sequence[sitk.Image] = ()) -> None:
    """Write (D, H, W) with the spacing, origin and direction of the first of `place`, without further header
    entries, which may name a patient.

    Raises:
        OSError: the file cannot be written, or the disk is full.
    """
    image = sitk.GetImageFromArray(volume) if isinstance(volume, np.ndarray) else volume
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    for first in place[:1]:
        image.CopyInformation(first)
    try:
        sitk.WriteImage(image, str(path), True)
        # ITK does not notice that a disk is full: half a file is left, and no error
        _volume_files.require_whole(_header(path), finite=False)
    except RuntimeError as error:
        raise OSError(errno.EIO, str(error).strip().splitlines()[-1][:200], str(path)) from error
    except _volume_files.VolumeFileError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _compare(first: sitk.Image, second: sitk.Image, names: str, what: str) -> float:
    """Largest distance in mm between where two images have the same corner voxel.

    Raises:
        CaseError: they differ in size.
    """
    if first.GetSize() != second.GetSize():
        raise _differ(what, names, reversed(first.GetSize()), reversed(second.GetSize()))
    corners = list(product(*((0, size - 1) for size in first.GetSize())))
    a, b = (np.array([i.TransformIndexToPhysicalPoint(corner) for corner in corners]) for i in (first, second))
    return float(np.linalg.norm(a - b, axis=1).max())


def _differences(first: sitk.Image, second: sitk.Image) -> str:
    parts = []
    for name in ("Origin", "Spacing", "Direction"):
        a, b = (getattr(image, f"Get{name}")() for image in (first, second))
        if not np.allclose(a, b, rtol=1e-4, atol=1e-4):
            shown = (f"({', '.join(f'{value:.4g}' for value in values)})" for values in (a, b))
            parts.append(f"{name.lower()} {' and '.join(shown)}")
    return "; ".join(parts) or "small differences that add up"
