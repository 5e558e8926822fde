"""Cases in nnU-Net's layout: verified, and their files copied byte for byte, instance masks of test images included."""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from swin_umamba_nnunet.datasets import _files
from swin_umamba_nnunet.datasets._labels import LabelMap
from swin_umamba_nnunet.datasets._model import Case, CaseError, Finding, Measured
from swin_umamba_nnunet.datasets._picture_cases import PictureCases
from swin_umamba_nnunet.datasets._pictures import read_picture
from swin_umamba_nnunet.datasets._volumes import MOVED, VolumeCases

INSTANCES = "instancesTs"
INSTANCE_SUFFIX = "_label"  # the name `evaluate --protocol cells` knows: CASE_label.tiff
_INSTANCE_ENDINGS = (".tiff", ".tif", ".png")


@dataclass(frozen=True)
class CopiedCases:
    """Reads cases as `reader` does, to verify them, and copies their files unchanged."""

    reader: PictureCases | VolumeCases
    channels: tuple[str, ...]
    ending: str
    instances: Mapping[str, Path] = field(default_factory=dict)
    link: bool = False

    @property
    def threads(self) -> int:
        """See `Handler`."""
        return self.reader.threads

    def measure(self, case: Case) -> Measured:
        """See `Handler`."""
        expected = [f"{case.name}_{channel:04d}" for channel in range(len(case.images))]
        found = [_files.stem_of(path, (self.ending,)) for path in case.images]
        if found != expected:
            raise CaseError("channel files are not numbered from 0000", ", ".join(found))
        measured = self.reader.measure(case)
        findings = tuple(
            replace(f, topic="image and mask lie at different places in space; the files are copied as they are")
            if f.topic == MOVED
            else f
            for f in measured.findings
        )
        measured = replace(measured, findings=findings)
        if measured.channels != len(self.channels):
            raise CaseError(
                f"image has not the published number of channels ({len(self.channels)})", str(measured.channels)
            )
        if case.name in self.instances and case.part == "test":
            count = _count_instances(self.instances[case.name], measured.shape)
            if count == 0:
                finding = Finding("warning", "instance mask has no instance", self.instances[case.name].name, case.name)
                measured = replace(measured, findings=(*measured.findings, finding))
        return measured

    def write(self, case: Case, images: Path, labels: Path, encode: LabelMap, file_ending: str) -> None:
        """See `Handler`."""
        for channel, path in enumerate(case.images):
            self._copy(path, images / f"{case.name}_{channel:04d}{file_ending}")
        if case.label is not None:
            self._copy(case.label, labels / f"{case.name}{file_ending}")

    def _copy(self, source: Path, target: Path) -> None:
        if self.link:
            os.link(source.resolve(), target)
        else:
            shutil.copyfile(source, target)

    def file_ending(self, measured: Iterable[Measured]) -> str:
        """As published."""
        return self.ending

    def channel_names(self, channels: int) -> tuple[str, ...]:
        """As published."""
        return self.channels

    def finish(self, folder: Path) -> None:
        """The instance masks, one per test case."""
        if self.instances:
            (folder / INSTANCES).mkdir()
        for name, path in self.instances.items():
            ending = _files.ending_of(path, _INSTANCE_ENDINGS)
            self._copy(path, folder / INSTANCES / f"{name}{INSTANCE_SUFFIX}{ending}")


def _count_instances(path: Path, shape: tuple[int, ...]) -> int:
    """Number of instances in a mask.  Raises CaseError where it is no instance mask of an image of that shape."""
    pixels = read_picture(path).pixels
    if pixels.ndim != 2 or pixels.dtype.kind not in "bui":
        raise CaseError(
            "instance mask is no single-channel image of whole numbers", f"{path} ({pixels.dtype}, {pixels.shape})"
        )
    if pixels.shape != shape:
        raise CaseError("image and instance mask differ in size (rows x columns)", f"{shape} and {pixels.shape}")
    return len(np.setdiff1d(np.unique(pixels), [0]))


def find_instances(source: Path, tests: list[str]) -> tuple[dict[str, Path], list[Finding]]:
    """Test case -> its instance mask, and what was noticed."""
    folders = sorted(path for path in source.iterdir() if path.is_dir() and "instance" in path.name.lower())
    if not folders:
        return {}, [
            Finding(
                "warning", "no folder of instance masks (labelsVal-instance-mask): F1 of the cells cannot be computed"
            )
        ]
    files = _files.list_files(folders[0], _INSTANCE_ENDINGS, "*")
    by_case = {_files.stem_of(path, _INSTANCE_ENDINGS).removesuffix(INSTANCE_SUFFIX): path for path in files}
    missing = [name for name in tests if name not in by_case]
    findings = [
        Finding("error", f"test image without an instance mask in {folders[0].name}", case=name) for name in missing
    ]
    findings += [
        Finding("warning", "instance mask without a test image was left out", by_case[n].name)
        for n in by_case
        if n not in tests
    ]
    found = {name: by_case[name] for name in tests if name in by_case}
    return found, [*findings, Finding("note", f"{len(found)} instance masks of test images go to {INSTANCES}")]
