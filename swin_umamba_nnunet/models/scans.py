"""New images as people have them: which files are a case, and their values as a trained model saw those of others.

Pictures and volumes are read by the readers of `datasets`, which notice damage, bad DICOM series and channels that lie
at different places; the values are those that nnU-Net's own readers of such files return.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

from swin_umamba_nnunet._text import by, listed
from swin_umamba_nnunet.datasets._dicom import holds_dicom
from swin_umamba_nnunet.datasets._files import (
    PICTURE_ENDINGS,
    VOLUME_ENDINGS,
    apply_pattern,
    ending_of,
    list_files,
    stem_of,
)
from swin_umamba_nnunet.datasets._model import NOT_FINITE, VOLUME_ENDING, CaseError, Findings, SourceCase, decoding
from swin_umamba_nnunet.datasets._pictures import read_pictures, write_picture
from swin_umamba_nnunet.datasets._volumes import list_volumes, read_volumes, write_volume
from swin_umamba_nnunet.evaluation import Image
from swin_umamba_nnunet.evaluation.readers import colours_of
from swin_umamba_nnunet.models.checkpoints import ModelError, channel_names, read_json
from swin_umamba_nnunet.models.fast_predictor import FastPredictor

# Protocols for one organ differ by up to five (slices of 1 mm and of 5 mm); wrong units, another species, a microscope
# by ten and more.
SPACING_FACTOR = 5
_NUMBERED = re.compile(r"(.+)_(\d{4})")  # nnU-Net's CASE_0000, CASE_0001, ...
_KEPT = (".nii.gz", ".nii", ".nrrd", ".mha")  # what masks are written as where the volume is; others become .nii.gz
_VOLUME_READERS = ("SimpleITKIO", "NibabelIO", "SimpleITKIOWithReorient", "NibabelIOWithReorient")


@dataclass(frozen=True)
class Scan:
    """An image, read.

    Attributes:
        data: (C, D, H, W) float32; D = 1 for a 2D image.
        properties: as nnU-Net's reader gives them: "spacing", in mm along (D, H, W), and what it needs to write.
        write: (mask (D, H, W), path) writes the mask with the image's geometry.
        shown: what an overlay shows of it.
    """

    data: np.ndarray
    properties: dict[str, Any]
    write: Callable[[np.ndarray, Path], None]
    shown: Image


class Scans:
    """The images that a model is for: 2D pictures, volumes, or what a reader of its own reads.

    Args:
        predictor: with the model in it.
        folder: the model's; its dataset_fingerprint.json has the voxel sizes of the training images.

    Raises:
        ModelError: nnU-Net has not the reader that the plans name, or something is missing in the model's files.
    """

    def __init__(self, predictor: FastPredictor, folder: Path) -> None:
        plans, fingerprint = predictor.plans_manager, folder / "dataset_fingerprint.json"
        found = read_json(fingerprint) if fingerprint.is_file() else {}
        try:
            self._reader, self._order = plans.image_reader_writer_class, plans.transpose_forward
            self._predictor, self._ending = predictor, predictor.dataset_json["file_ending"]
            median = plans.plans["original_median_spacing_after_transp"]
            seen = found.get("spacings") or [[median[axis] for axis in plans.transpose_backward]]
            self._seen = np.array(seen, float)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError(
                f"{folder} is no model that nnU-Net has trained ({type(error).__name__}: {error})"
            ) from error
        self._pictures, self._volumes = self._reader is NaturalImage2DIO, self._reader.__name__ in _VOLUME_READERS
        self.endings: tuple[str, ...]
        if self._pictures:
            self.endings, self._read = PICTURE_ENDINGS, self._read_pictures
        elif self._volumes:
            self.endings, self._read = VOLUME_ENDINGS, self._read_volumes
        else:
            self.endings, self._read = (self._ending.lower(),), self._read_own

    def find(self, images: Sequence[Path], channels: Mapping[str, str | os.PathLike]) -> list[SourceCase]:
        """The cases in files and folders, sorted by name.

        Args:
            images: a file is a case of its own, and so is a folder with a DICOM series.  Any other folder is looked
                through for both; files CASE_0000, CASE_0001, ... in it are the channels of one case.
            channels: name or number of each of the model's channels -> its file, or a pattern in the one folder that
                `images` then is: what `*` and `?` stand for tells which files belong together.

        Raises:
            ModelError: there are none, some are of a kind that the model is not for, or two would have one name.
        """
        if channels:
            cases = self._by_channel(images, dict(channels))
        else:
            cases = [case for path in images for case in self._within(path)]
        names: dict[str, SourceCase] = {}
        for case in cases:
            other = names.setdefault(case.name.casefold(), case)  # of masks, pictures and cases of `evaluate`
            if other is not case:
                raise ModelError(
                    f"the masks of {other.images[0]} and {case.images[0]} would have the same name, {case.name}: "
                    "rename one of them, or predict them into different folders"
                )
        return sorted(cases, key=lambda case: case.name)

    def _within(self, path: Path) -> list[SourceCase]:
        """What lies at a path."""
        if not path.is_dir() or (self._volumes and holds_dicom(path)):
            return [self._case("", path)]
        files = self._list(path, "*")
        if not files:
            below = any(entry.is_dir() for entry in path.iterdir())
            deeper = (
                "; what lies in folders of it is found by a pattern for each channel, as in --channel 0='*/*'" * below
            )
            raise ModelError(f"{path} has no image that this model is for: {self._kind}{deeper}")
        cases = []
        numbered: dict[str, list[tuple[str, Path]]] = defaultdict(list)
        for file in files:
            found = _NUMBERED.fullmatch(stem_of(file, self.endings))
            if found:
                numbered[found[1]].append((found[2], file))
            else:
                cases.append(self._case("", file))
        for name, group in numbered.items():
            if [int(number) for number, _ in group] == list(range(len(group))):
                cases.append(self._case(name, *(file for _, file in group)))
            else:  # numbers of patients or photographs
                cases += [self._case("", file) for _, file in group]
        return cases

    def _by_channel(self, images: Sequence[Path], asked: dict[str, str | os.PathLike]) -> list[SourceCase]:
        names = channel_names(self._predictor.dataset_json)
        given = ", ".join(asked)
        patterns = [asked.pop(name, None) or asked.pop(number, None) for number, name in names.items()]
        if asked or None in patterns:
            known = ", ".join(f"{number} {name}" for number, name in names.items())
            raise ModelError(f"the channels {given} are given, and the model's are {known}: name each of them once")
        base = images[0] if images else Path()
        if len(images) > 1 or not base.is_dir():
            raise ModelError(f"{base} is no folder: beside channels, one folder is expected, or none (-i)")
        places = [base / str(pattern) for pattern in patterns]
        wild = [bool(re.search(r"[*?]", str(pattern))) for pattern in patterns]
        if not any(wild):
            return [self._case("", *places)]
        if not all(wild):
            one, many = patterns[wild.index(False)], patterns[wild.index(True)]
            raise ModelError(f"{one} is one file and {many} a pattern: give a pattern for each channel, or a file")
        channels: list[dict[str, Path]] = []
        for pattern in map(str, patterns):
            root = Path(Path(pattern).anchor or base)
            pattern = pattern.removeprefix(root.anchor)
            expression = re.escape(pattern)
            for mark, stands in ((r"\*\*/", "(?:(.*)/)?"), (r"\*", "([^/]*)"), (r"\?", "([^/])")):
                expression = expression.replace(mark, stands)
            paths = {str(apply_pattern(f"^{expression}$", path, root)): path for path in self._list(root, pattern)}
            if not paths:
                raise ModelError(f"{base} has nothing like {pattern} that this model is for: {self._kind}")
            channels.append(paths)
        # where a channel of a case is missing, its pattern stands for it, and reading it says so
        return [
            SourceCase(key.replace("/", "_"), tuple(map(dict.get, channels, repeat(key), places)), None, "test")
            for key in dict.fromkeys(key for paths in channels for key in paths)
        ]

    def _list(self, folder: Path, pattern: str) -> list[Path]:
        return (list_volumes if self._volumes else list_files)(folder, self.endings, pattern)

    def _case(self, name: str, *paths: Path) -> SourceCase:
        for path in paths:
            if not path.exists():
                raise ModelError(f"{path} does not exist; expected an image, or a folder of images")
            if not (holds_dicom(path) if path.is_dir() and self._volumes else ending_of(path, self.endings)):
                raise ModelError(f"{path} is not what this model is for: {self._kind}")
        first = Path(os.path.abspath(paths[0]))
        return SourceCase(name or (first.name if first.is_dir() else stem_of(first, self.endings)), paths, None, "test")

    @property
    def _kind(self) -> str:
        dicom = " and folders with a DICOM series" * self._volumes
        return f"it was trained on {self._ending} files, and takes {', '.join(self.endings)}{dicom}"

    def mask_name(self, case: SourceCase) -> str:
        """File name of a case's mask: PNG for pictures, the volume's own format where that is one file, else NIfTI."""
        if self._pictures:
            return f"{case.name}.png"
        ending = ending_of(case.images[0], self.endings)
        return case.name + (self._ending if not self._volumes else ending if ending in _KEPT else VOLUME_ENDING)

    def read(self, case: SourceCase, findings: Findings) -> Scan:
        """Read a case and see whether the model can be meant for it; what is odd about it is added to the findings.

        Raises:
            CaseError: a file is damaged, or files do not fit together.
            ModelError: other channels than the model's, one slice for a 3D model, voxels more than `SPACING_FACTOR`
                times larger or smaller than any of the training's (in 2D, within the slices).
        """
        there = [path for path in case.images if path.exists()]
        for path in {*case.images} - {*there}:
            raise CaseError(f"{listed(there)} has no other channel beside it: nothing is like {path}")
        number = len(case.images)
        what = f"{case.name} ({listed(path.name for path in case.images)})" if number > 1 else str(case.images[0])
        if number > len(channel_names(self._predictor.dataset_json)):  # a file has one channel at least
            self._predictor.require_channels(number, what)
        scan = self._read(case, findings)
        self._predictor.require_channels(len(scan.data), what)
        if not np.isfinite(scan.data).all():
            raise CaseError(NOT_FINITE, what)
        spacing, axes = scan.properties["spacing"], self._order
        if len(self._predictor.configuration_manager.patch_size) == 2:
            axes = axes[1:]
        elif min(scan.data.shape[1:]) == 1:
            raise ModelError(f"{what} is a single slice of {by(scan.data.shape[1:])} voxels, and the model is a 3D one")
        low, high = self._seen.min(axis=0), self._seen.max(axis=0)
        if any(not low[i] / SPACING_FACTOR <= spacing[i] <= high[i] * SPACING_FACTOR for i in axes):
            names, found = by(("slices", "rows", "columns")[i] for i in axes), by(f"{spacing[i]:.4g}" for i in axes)
            known = by(f"{low[i]:.4g}" + f" to {high[i]:.4g}" * bool(low[i] < high[i]) for i in axes)
            raise ModelError(
                f"{what} has voxels of {found} mm, and the training had {known} mm ({names}): more than "
                f"{SPACING_FACTOR} times off. Correct its header, or resample it"
            )
        return scan

    def read_mask(self, case: SourceCase, mask: Path) -> np.ndarray:
        """The mask of a case, as it was written, (D, H, W), as `shown` of the case lies.

        Raises:
            CaseError: it is damaged.
        """
        return self._read(replace(case, images=(mask,)), Findings()).data[0].astype(int)

    def _read_pictures(self, case: SourceCase, findings: Findings) -> Scan:
        number = len(channel_names(self._predictor.dataset_json)) if len(case.images) == 1 else 0
        alike = "grey" if number == 1 else "rgb" if number == 3 else None
        planes: list[np.ndarray] = []
        for path in case.images:
            one = SourceCase(case.name, (path,), None, "test")
            (pixels,) = read_pictures(one, findings, alike, "apply").images  # type: ignore[arg-type]
            planes.extend(np.moveaxis(np.atleast_3d(pixels), -1, 0).astype(np.float32)[:, None])
        if len({plane.shape for plane in planes}) > 1:
            raise CaseError("channels differ in size (rows x columns)", listed(path.name for path in case.images))
        data = np.stack(planes)
        shown = Image(colours_of(data) if len(data) == 3 else data[0], (1.0, 1.0, 1.0), None)
        return Scan(data, {"spacing": (999, 1, 1)}, lambda mask, path: write_picture(mask[0], path), shown)

    def _read_volumes(self, case: SourceCase, findings: Findings) -> Scan:
        volumes = list(read_volumes(case, findings).volumes)
        original, direction = volumes[0], None
        if original.GetDimension() == 3:
            if self._reader.__name__.endswith("WithReorient"):
                volumes = [sitk.DICOMOrient(volume, "RAS") for volume in volumes]
            direction = np.array(volumes[0].GetDirection()).reshape(3, 3)
        data = np.stack([sitk.GetArrayViewFromImage(volume).astype(np.float32) for volume in volumes])
        spacing = [abs(value) for value in reversed(volumes[0].GetSpacing())]
        if data.ndim == 3:  # nnU-Net's way to hold a 2D image
            data, spacing = data[:, None], [999 * max(spacing), *spacing]
        write = partial(_write_volume, original, volumes[0])
        return Scan(data, {"spacing": spacing}, write, Image(data[0], tuple(spacing), direction))  # type: ignore[arg-type]

    def _read_own(self, case: SourceCase, findings: Findings) -> Scan:
        reader, files = self._reader(), [str(path) for path in case.images]
        with decoding(case.images[0], f"{self._reader.__name__} cannot read the file"):
            data, properties = reader.read_images(files)
        shown = Image(data[0], tuple(map(float, properties["spacing"])), None)  # type: ignore[arg-type]
        return Scan(data, properties, lambda mask, path: reader.write_seg(mask, str(path), properties), shown)


def _write_volume(original: sitk.Image, turned: sitk.Image, mask: np.ndarray, path: Path) -> None:
    """Write a mask of the turned volume at the place of the original, and as that is stored."""
    image = sitk.GetImageFromArray(mask if original.GetDimension() == 3 else mask[0])
    image.CopyInformation(turned)
    if turned is not original:
        cosines = original.GetDirection()
        image = sitk.DICOMOrient(image, sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(cosines))
    write_volume(image, path, [original])
