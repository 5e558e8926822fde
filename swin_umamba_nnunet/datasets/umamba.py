"""The three datasets U-Mamba's authors publish in nnU-Net's layout: verified, repaired, completed.

What is repaired is dataset.json: U-Mamba's copy of 702 counts 60 training cases where 50 lie, and nnU-Net stops at
that.  What is completed is 703: the instance masks of its test images go where `swin-umamba evaluate` finds them.
Image and label files are copied byte for byte.
"""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from swin_umamba_nnunet.datasets import _files
from swin_umamba_nnunet.datasets._labels import LabelEntry, LabelMap, LabelRule
from swin_umamba_nnunet.datasets._model import Case, CaseError, ConversionError, Finding, Measured, Part, Plan
from swin_umamba_nnunet.datasets._picture_cases import PictureCases
from swin_umamba_nnunet.datasets._pictures import read_picture
from swin_umamba_nnunet.datasets._volumes import MOVED, VolumeCases

INSTANCES = "instancesTs"
INSTANCE_SUFFIX = "_label"  # the name `evaluate --protocol cells` knows: CASE_label.tiff
_INSTANCE_ENDINGS = (".tiff", ".tif", ".png")
_ORGANS = (
    "liver", "right kidney", "spleen", "pancreas", "aorta", "IVC", "right adrenal gland", "left adrenal gland",
    "gallbladder", "esophagus", "stomach", "duodenum", "left kidney",
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """What is known of a published dataset.

    Attributes:
        name: nnU-Net's.
        channels: names for dataset.json, where the source's has none.
        labels: number of labels without background, and their names where they are known.
        training: numbers of training cases of the copies in circulation.
        test: number of test cases.
        ending: of image and label files.
        instances: the test images have instance masks.
    """

    name: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    training: tuple[int, ...]
    test: int
    ending: str
    instances: bool = False


PUBLISHED: Mapping[int, Published] = {
    702: Published("Dataset702_AbdomenMR", ("MR",), _ORGANS, (60, 50), 50, ".nii.gz"),
    703: Published("Dataset703_NeurIPSCell", ("R", "G", "B"), ("interior", "boundary"), (1000,), 101, ".png", True),
    704: Published(
        "Dataset704_Endovis17", ("R", "G", "B"), tuple(f"instrument {i}" for i in range(1, 8)), (1800,), 1200, ".png"
    ),
}


def plan_umamba(
    source: Path, identifier: int | None = None, allow_incomplete: bool = False, link: bool = False
) -> Plan:
    """List the cases of a published dataset.

    Args:
        source: the dataset's folder.
        identifier: 702, 703 or 704; None: by the folder's name.
        allow_incomplete: fewer cases than were published are a warning instead of an error.
        link: make hard links instead of copies (same disk only).

    Raises:
        ConversionError: the source is none of the three, or its dataset.json is beyond repair.
    """
    source = _files.check_source(source)
    known = PUBLISHED[identify_published(source, identifier)]
    source = _inner(source, known)
    train = _files.subfolder(source, ("imagestr",)), _files.subfolder(source, ("labelstr",))
    test = _files.subfolder(source, ("imagests", "imagesval")), _files.subfolder(source, ("labelsts", "labelsval"))
    if train[0] is None or train[1] is None:
        raise ConversionError(f"{source} has no imagesTr and labelsTr; give the folder {known.name} that was unpacked")
    cases, findings = _cases("train", train[0], train[1], known.ending)
    if test[0] is not None:
        more, noticed = _cases("test", test[0], test[1], known.ending)
        cases, findings = cases + more, findings + noticed
    both = {case.name for case in cases if case.part == "train"} & {case.name for case in cases if case.part == "test"}
    findings += [Finding("error", "the same case in training and test", case=name) for name in sorted(both)]
    findings += _judge_counts(cases, known, allow_incomplete)
    labels, channels, noticed = _dataset_json(source / "dataset.json", known, sum(c.part == "train" for c in cases))
    findings += noticed
    instances: dict[str, Path] = {}
    if known.instances:
        instances, noticed = _instances(source, [case.name for case in cases if case.part == "test"])
        findings += noticed
    pictures = known.ending == ".png"
    return Plan(
        layout="umamba",
        source=source,
        cases=tuple(sorted(cases, key=lambda case: (case.part, case.name))),
        handler=CopiedCases(
            PictureCases(exif="ignore") if pictures else VolumeCases(channels, trust_image=True),
            channels,
            known.ending,
            instances,
            link,
        ),  # fmt: skip
        labels=LabelRule((LabelEntry("background", 0), *(LabelEntry(name, i) for i, name in enumerate(labels, 1)))),
        description=f"{known.name} as published with U-Mamba; dataset.json checked against the files.",
        findings=tuple(findings),
    )


def identify_published(source: Path, identifier: int | None = None) -> int:
    """702, 703 or 704, by the folder's name unless it is said.  Raises ConversionError for anything else."""
    if identifier is not None:
        if identifier not in PUBLISHED:
            raise ConversionError(f"--published {identifier}: U-Mamba publishes 702, 703 and 704")
        return identifier
    for number, known in PUBLISHED.items():
        name = source.name.lower()
        if str(number) in name or known.name.split("_")[1].lower() in name:
            return number
    raise ConversionError(
        f"which of 702 (AbdomenMR), 703 (NeurIPSCell), 704 (Endovis17) is {source}? say --published 70X"
    )


def _inner(source: Path, known: Published) -> Path:
    """Unpacking often puts the dataset's folder into another one."""
    return source / known.name if not (source / "imagesTr").is_dir() and (source / known.name).is_dir() else source


def _cases(part: Part, images: Path, labels: Path | None, ending: str) -> tuple[list[Case], list[Finding]]:
    channels: dict[str, list[Path]] = defaultdict(list)
    findings: list[Finding] = []
    for path in _files.list_files(images, (ending,), "*"):
        stem = _files.stem_of(path, (ending,))
        if stem[-5:-4] == "_" and stem[-4:].isdigit():
            channels[stem[:-5]].append(path)
        else:
            findings.append(Finding("error", f"image is not named NAME_0000{ending}, as nnU-Net wants it", str(path)))
    masks = (
        {_files.stem_of(path, (ending,)): path for path in _files.list_files(labels, (ending,), "*")} if labels else {}
    )
    findings += [
        Finding("warning", "label without an image was left out", str(path))
        for name, path in masks.items()
        if name not in channels
    ]
    return [Case(name, tuple(paths), masks.get(name), part) for name, paths in channels.items()], findings


def _judge_counts(cases: list[Case], known: Published, allow_incomplete: bool) -> list[Finding]:
    findings = []
    for part, expected in (("train", known.training), ("test", (known.test,))):
        count = sum(case.part == part for case in cases)
        if count in expected:
            continue
        word = {"train": "training", "test": "test"}[part]
        text = f"{count} {word} cases; {' or '.join(map(str, expected))} were published"
        if count < min(expected) and not allow_incomplete:
            text += "; Google Drive hands out large folders in several archives, was one forgotten?"
            findings.append(Finding("error", text + " (--allow-incomplete goes on)"))
        else:
            findings.append(Finding("warning", text + ": results are not comparable with the papers'"))
    if len(known.training) > 1 and sum(case.part == "train" for case in cases) == known.training[1]:
        findings.append(Finding("warning", f"this copy has {known.training[1]} training cases, Swin-UMamba's paper "
                                f"trained on {known.training[0]}"))  # fmt: skip
    return findings


def _dataset_json(
    path: Path, known: Published, training: int
) -> tuple[tuple[str, ...], tuple[str, ...], list[Finding]]:
    """Label names (without background), channel names, and what had to be repaired."""
    if not path.is_file():
        return (
            known.labels,
            known.channels,
            [Finding("note", "dataset.json is missing and was made from what was published")],
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        return known.labels, known.channels, [Finding("note", f"dataset.json is no JSON and was made anew ({error})")]
    if not isinstance(content, dict):
        return known.labels, known.channels, [Finding("note", "dataset.json is no JSON object and was made anew")]
    findings = []
    if content.get("numTraining") != training:
        stated = content.get("numTraining")
        findings.append(
            Finding("note", f"dataset.json states numTraining {stated} and {training} cases are there: repaired")
        )
    if content.get("file_ending") != known.ending:
        findings.append(
            Finding("note", f"dataset.json states file_ending {content.get('file_ending')}: repaired to {known.ending}")
        )
    labels = _label_names(content.get("labels"), len(known.labels))
    if labels is None:
        findings.append(
            Finding(
                "note",
                f"labels of dataset.json are not 0 to {len(known.labels)}: repaired",
                str(content.get("labels"))[:200],
            )
        )
    raw = content.get("channel_names", content.get("modality"))
    names = [str(name) for _, name in sorted(raw.items())] if isinstance(raw, dict) else []
    channels = tuple(names) if len(names) == len(known.channels) else known.channels
    if "channel_names" not in content or len(names) != len(known.channels):
        findings.append(Finding("note", f"channel_names of dataset.json: repaired to {', '.join(channels)}"))
    return labels or known.labels, channels, findings


def _label_names(raw: object, count: int) -> tuple[str, ...] | None:
    """Names of labels 1 to count from {"name": 1} or, in nnU-Net's first version's way, {"1": "name"}."""
    if not isinstance(raw, dict):
        return None
    try:
        by_number = {int(value): str(name) for name, value in raw.items()}
    except (TypeError, ValueError):
        try:
            by_number = {int(number): str(name) for number, name in raw.items()}
        except (TypeError, ValueError):
            return None
    if sorted(by_number) != list(range(count + 1)):
        return None
    names = tuple(by_number[number] for number in range(1, count + 1))
    return names if len(set(names)) == count and not {"background", "ignore"} & set(names) else None


def _instances(source: Path, tests: list[str]) -> tuple[dict[str, Path], list[Finding]]:
    """Test case -> its instance mask."""
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
