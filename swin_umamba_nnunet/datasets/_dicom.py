"""DICOM series folders through SimpleITK (GDCM), and whether their slices make a volume."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from swin_umamba_nnunet._text import listed
from swin_umamba_nnunet.datasets._model import CaseError, Findings, decoding

_POSITION, _ORIENTATION, _DESCRIPTION = "0020|0032", "0020|0037", "0008|103e"
# SOP Class UID, of the file's meta information or, where that has none, of the object: explicit or implicit VR
_SOP_CLASS = re.compile(rb"(?:\x02\0\x02\0|\x08\0\x16\0)(?:UI(..)|(..)\0\0)(?=[0-9.])", re.DOTALL)
_LOOKED_AT = 20  # files of a folder, in search of a DICOM one
SPACING_TOLERANCE = 0.01  # relative difference between slice distances that scanners' rounding explains
TILT_TOLERANCE_MM = 0.01  # in-plane shift from one slice to the next


def holds_dicom(folder: Path) -> bool:
    """Whether DICOM files lie directly in the folder (the letters DICM at byte 128 of one of the first files)."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return any(_is_dicom(path) for path in files[:_LOOKED_AT])


def _begin(path: Path, length: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(length)
    except OSError:
        return b""


def _is_dicom(path: Path) -> bool:
    return path.is_file() and _begin(path, 132)[128:] == b"DICM"


def _sop_class(path: Path) -> bytes:
    """UID of the kind of object in a DICOM file (PS3.4 B.5), b"" where the file ends before it or cannot be read.

    By the bytes: GDCM's readers take no objects that are not images.
    """
    raw = _begin(path, 4096)
    found = _SOP_CLASS.search(raw, 132)
    if found is None:
        return b""
    length = int.from_bytes(found[1] or found[2], "little")
    uid = raw[found.end() : found.end() + length]
    return uid.rstrip(b"\0 ") if len(uid) == length else b""


def read_series(folder: Path, findings: Findings) -> sitk.Image:
    """The one series in a folder as a volume; what is odd about its slices is added to the findings.

    Objects of another kind beside them (contours, reports, plans, presentation states) are left out, with a note.

    Raises:
        CaseError: several series, none, a damaged file (also where GDCM would leave it out), or two slices at one
            place.
    """
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise CaseError("folder holds no readable DICOM series", str(folder))
    files = {uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in series}
    if len(series) > 1:
        shown = "; ".join(f"{_describe(files[uid][0])} {len(files[uid])} files, {uid}" for uid in series[:5])
        raise CaseError("folder holds several DICOM series; put each into a folder of its own", f"{folder}: {shown}")
    names = files[series[0]]
    known = {Path(name).name for name in names}  # GDCM's folders have "/" on every system
    others = (path for path in sorted(folder.iterdir()) if path.name not in known and path.name.upper() != "DICOMDIR")
    left_out = list(filter(_is_dicom, others))
    # GDCM leaves out what is no image, and also what it cannot read to the end: the volume would be a slice short.
    # The series' UID would not tell them apart, as contours name the series that they belong to.
    slices = {b"", *(_sop_class(folder / name) for name in known)} if left_out else set()
    cut_off = [path for path in left_out if _sop_class(path) in slices]
    if cut_off:
        raise CaseError("DICOM file cannot be read; is it cut off? Get it again", listed(cut_off, 1))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    with decoding(folder, "DICOM series cannot be read"):
        _judge_slices(names, folder, findings)
        if left_out:
            topic = "DICOM files that are no images (contours, reports, plans?) are left out"
            findings.note(topic, listed(left_out, 1))
        image = reader.Execute()
    return image[..., 0] if image.GetDimension() == 4 and image.GetSize()[3] == 1 else image


def _header(name: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.ReadImageInformation()
    return reader


def _describe(name: str) -> str:
    try:
        reader = _header(name)
    except RuntimeError:
        return "(unreadable)"
    return (
        f'"{reader.GetMetaData(_DESCRIPTION).strip()}"' if reader.HasMetaDataKey(_DESCRIPTION) else "(no description)"
    )


def _numbers(reader: sitk.ImageFileReader, key: str, count: int) -> list[float] | None:
    try:
        numbers = [float(part) for part in reader.GetMetaData(key).split("\\")]
    except (RuntimeError, ValueError):  # the key is not there, or no number
        return None
    return numbers if len(numbers) == count else None


def _judge_slices(names: Sequence[str], folder: Path, findings: Findings) -> None:
    """Slice distances and shifts from the positions in the headers (ITK assumes equal distances and no tilt)."""
    if len(names) < 2:
        return
    positions, orientations = [], []
    for name in names:
        reader = _header(name)
        position, orientation = _numbers(reader, _POSITION, 3), _numbers(reader, _ORIENTATION, 6)
        if position is None or orientation is None:
            findings.warning("DICOM slices have no position: order and distance are guessed", folder.name)
            return
        positions.append(position)
        orientations.append(orientation)
    if np.ptp(np.array(orientations), axis=0).max() > 1e-3:
        raise CaseError("DICOM slices are not parallel (a localizer, or several stacks?)", str(folder))
    judge_positions(np.array(positions), np.array(orientations[0]), folder.name, findings)


def judge_positions(positions: np.ndarray, orientation: np.ndarray, name: str, findings: Findings) -> None:
    """What is odd about slices at `positions` (N, 3) in mm with row and column direction `orientation` (6,).

    Raises:
        CaseError: two slices lie at one place.
    """
    normal = np.cross(orientation[:3], orientation[3:])
    order = np.argsort(positions @ normal)
    steps = np.diff(positions[order], axis=0)
    distances = steps @ normal
    if distances.min() < 1e-3:
        raise CaseError("DICOM series has several slices at one place (time points? contrast phases?)", name)
    usual = float(np.median(distances))
    if np.abs(distances - usual).max() > SPACING_TOLERANCE * usual:
        text = f"{name}: {distances.min():.4g} to {distances.max():.4g} mm, usually {usual:.4g} mm"
        findings.warning("DICOM slices have unequal distances (slices missing?); the volume is distorted", text)
    shift = float(np.linalg.norm(steps - distances[:, None] * normal, axis=1).max())
    if shift > TILT_TOLERANCE_MM:
        text = f"{name}: {shift:.3g} mm per slice"
        findings.warning("DICOM slices are shifted sideways (gantry tilt); the volume is sheared", text)
