"""The three datasets U-Mamba's authors publish in nnU-Net's layout: verified, repaired, completed.

What is repaired is dataset.json: U-Mamba's copy of 702 counts 60 training cases where 50 lie, and nnU-Net stops at
that.  What is completed is 703: the instance masks of its test images go where `swin-umamba evaluate` finds them.
Image and label files are copied byte for byte.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from swin_umamba_nnunet.datasets import _files
from swin_umamba_nnunet.datasets._model import (
    INSTANCE_LABELS,
    INSTANCE_SUFFIX,
    INSTANCES,
    CaseError,
    Content,
    Conversion,
    ConversionError,
    Findings,
    LabelRule,
    Layout,
    Part,
    SourceCase,
    option,
)

_INSTANCE_ENDINGS = (".tiff", ".tif", ".png")
_MOVED = "image and mask lie at different places in space; the files are copied as they are"
_ORGANS = (
    "liver",
    "right kidney",
    "spleen",
    "pancreas",
    "aorta",
    "IVC",
    "right adrenal gland",
    "left adrenal gland",
    "gallbladder",
    "esophagus",
    "stomach",
    "duodenum",
    "left kidney",
)


@dataclass(frozen=True)
class Published:
    """What is known of a published dataset.

    Attributes:
        name: nnU-Net's.
        channels: names for dataset.json, where the source's has none.
        labels: names of the labels without background.
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


_RGB = ("R", "G", "B")
_INSTRUMENTS = tuple(f"instrument {i}" for i in range(1, 8))
PUBLISHED: Mapping[int, Published] = {
    702: Published("Dataset702_AbdomenMR", ("MR",), _ORGANS, (60, 50), 50, ".nii.gz"),
    703: Published("Dataset703_NeurIPSCell", _RGB, INSTANCE_LABELS, (1000,), 101, ".png", True),
    704: Published("Dataset704_Endovis17", _RGB, _INSTRUMENTS, (1800,), 1200, ".png"),
}


@dataclass(frozen=True)
class UMamba(Layout):
    """The datasets that U-Mamba's authors publish."""

    name = "umamba"
    summary = "U-Mamba's published datasets 702, 703, 704"
    text = """\
The datasets that U-Mamba's authors publish, already in nnU-Net's layout: Dataset702_AbdomenMR, Dataset703_NeurIPSCell,
Dataset704_Endovis17.  Every file is read and checked, dataset.json is repaired (702 counts 60 cases where 50 lie), and
703's instance masks go to instancesTs for `swin-umamba evaluate --protocol cells`.  Files are copied unchanged.
"""
    numbered = True

    published: int | None = option("which one (default: by the folder's name)", type=int, choices=tuple(PUBLISHED))
    allow_incomplete: bool = option("go on although cases are missing", False, action="store_true")
    link: bool = option("make hard links instead of copies (on one disk only)", False, action="store_true")

    def _conversion(self, source: Path) -> Conversion:
        known = self._known(source)
        source = source if (source / "imagesTr").is_dir() else _files.inner(source, known.name)
        findings = Findings()
        cases: list[SourceCase] = []
        sides: tuple[tuple[Part, tuple[str, ...]], ...] = ("train", ("tr",)), ("test", ("ts", "val"))
        for part, endings in sides:
            images, labels = (_files.subfolder(source, [kind + e for e in endings]) for kind in ("images", "labels"))
            if part == "train" and not (images and labels):
                raise ConversionError(
                    f"{source} has no imagesTr and labelsTr; give the folder {known.name} that was unpacked"
                )
            if images:
                cases += _cases(part, images, labels, known.ending, findings)
        names = {part: {case.name for case in cases if case.part == part} for part, _ in sides}
        for name in sorted(names["train"] & names["test"]):
            findings.error("the same case in training and test", case=name)
        train, test = (len(each) for each in names.values())
        self._judge_counts(train, test, known, findings)
        labels_of, channels = _repaired_json(source / "dataset.json", known, train, findings)
        instances = _instances(source, sorted(names["test"]), findings) if known.instances else {}
        return Conversion(
            self.name,
            source,
            cases,
            read=partial(_read, known=known, channels=len(channels), instances=instances),
            labels=LabelRule.of(labels_of),
            description=f"{known.name} as published with U-Mamba; dataset.json checked against the files.",
            findings=findings,
            channels=channels,
            ending=known.ending,
            copied="link" if self.link else "copy",
            added={
                f"{INSTANCES}Ts/{name}{INSTANCE_SUFFIX}{_files.ending_of(path, _INSTANCE_ENDINGS)}": path
                for name, path in instances.items()
            },
            threads=8 if known.ending == ".png" else 2,
            dataset=known.name,
        )

    def _known(self, source: Path) -> Published:
        """Which dataset it is, by the folder's name unless it is said.  Raises ConversionError for anything else."""
        if self.published is not None and self.published not in PUBLISHED:
            raise ConversionError(f"--published {self.published}: U-Mamba publishes 702, 703 and 704")
        name = source.name.lower()
        for number, known in PUBLISHED.items():
            named = str(number) in name or known.name.split("_")[1].lower() in name
            if number == self.published or (self.published is None and named):
                return known
        raise ConversionError(
            f"which of 702 (AbdomenMR), 703 (NeurIPSCell), 704 (Endovis17) is {source}? say --published 70X"
        )

    def _judge_counts(self, train: int, test: int, known: Published, findings: Findings) -> None:
        for word, count, expected in (("training", train, known.training), ("test", test, (known.test,))):
            text = f"{count} {word} cases; {' or '.join(map(str, expected))} were published"
            if count < min(expected) and not self.allow_incomplete:
                findings.error(
                    f"{text}; Google Drive hands out large folders in several archives, was one forgotten? "
                    "(--allow-incomplete goes on)"
                )
            elif count not in expected:
                findings.warning(f"{text}: results are not comparable with the papers'")
        first, *smaller = known.training
        if train in smaller:
            findings.warning(f"this copy has {train} training cases, Swin-UMamba's paper trained on {first}")


def _cases(part: Part, images: Path, labels: Path | None, ending: str, findings: Findings) -> list[SourceCase]:
    channels = defaultdict(list)
    for path in _files.list_files(images, (ending,), "*"):
        if named := re.fullmatch(r"(.+)_\d{4}", _files.stem_of(path, (ending,))):
            channels[named[1]].append(path)
        else:
            findings.error(f"image is not named NAME_0000{ending}, as nnU-Net wants it", str(path))
    files = _files.list_files(labels, (ending,), "*") if labels else []
    masks = {_files.stem_of(path, (ending,)): path for path in files}
    for name in sorted(masks.keys() - channels.keys()):
        findings.warning("label without an image was left out", str(masks[name]))
    return [SourceCase(name, tuple(paths), masks.get(name), part) for name, paths in channels.items()]


def _repaired_json(
    path: Path, known: Published, training: int, findings: Findings
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of labels (without background) and channels; what had to be repaired is noted."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        content = "is missing and was made from what was published"
    except (ValueError, OSError) as error:
        content = f"is no JSON and was made anew ({error})"
    if not isinstance(content, dict):
        findings.note(f"dataset.json {content if isinstance(content, str) else 'is no JSON object and was made anew'}")
        return known.labels, known.channels
    labels = _label_names(content.get("labels"), len(known.labels)) or known.labels
    raw = content.get("channel_names", content.get("modality"))
    names = tuple(str(name) for _, name in sorted(raw.items())) if isinstance(raw, dict) else ()
    channels = names if len(names) == len(known.channels) else known.channels
    right = {
        "numTraining": training,
        "file_ending": known.ending,
        "labels": {name: value for value, name in enumerate(("background", *labels))},
        "channel_names": {str(index): name for index, name in enumerate(channels)},
    }
    for key, value in right.items():
        if content.get(key) != value:
            findings.note(f"dataset.json states {key} {content.get(key)}"[:300] + f": repaired to {value}")
    return labels, channels


def _label_names(raw: object, count: int) -> tuple[str, ...]:
    """Names of labels 1 to count from {"name": 1} or, in nnU-Net's first version's way, {"1": "name"}; else ()."""
    pairs = list(raw.items()) if isinstance(raw, dict) else []
    for place in 0, 1:
        with suppress(TypeError, ValueError):
            by_number = {int(pair[1 - place]): str(pair[place]) for pair in pairs}
            names = tuple(by_number[number] for number in sorted(by_number))[1:]
            if sorted(by_number) == [*range(count + 1)] and len({*names, "background", "ignore"}) == count + 2:
                return names
    return ()


def _read(
    case: SourceCase, findings: Findings, known: Published, channels: int, instances: Mapping[str, Path]
) -> Content:
    from swin_umamba_nnunet.datasets._pictures import read_pictures
    from swin_umamba_nnunet.datasets._volumes import read_volumes

    found = [_files.stem_of(path, (known.ending,)) for path in case.images]
    if found != [f"{case.name}_{channel:04d}" for channel in range(len(found))]:
        raise CaseError("channel files are not numbered from 0000", ", ".join(found))
    pictures = known.ending == ".png"
    read: Callable[[SourceCase, Findings], Content] = read_pictures if pictures else partial(read_volumes, moved=_MOVED)
    content = read(case, findings)
    shape = content.images[0].shape
    count = (*shape, 1)[2] if pictures else len(content.images)
    if count != channels:
        raise CaseError(f"image has not the published number of channels ({channels})", str(count))
    if case.part == "test" and case.name in instances:
        _judge_instances(instances[case.name], shape[:2], findings)
    return content


def _judge_instances(path: Path, shape: tuple[int, ...], findings: Findings) -> None:
    """Raises CaseError where the file is no instance mask of an image of that shape."""
    from swin_umamba_nnunet.datasets._pictures import read_picture

    pixels = read_picture(path).pixels
    if pixels.ndim != 2 or pixels.dtype.kind not in "bui":
        topic = "instance mask is no single-channel image of whole numbers"
        raise CaseError(topic, f"{path} ({pixels.dtype}, {pixels.shape})")
    if pixels.shape != shape:
        raise CaseError("image and instance mask differ in size (rows x columns)", f"{shape} and {pixels.shape}")
    if not pixels.any():
        findings.warning("instance mask has no instance", path.name)


def _instances(source: Path, tests: list[str], findings: Findings) -> dict[str, Path]:
    """Test case -> its instance mask."""
    folders = sorted(path for path in source.iterdir() if path.is_dir() and "instance" in path.name.lower())
    if not folders:
        findings.warning("no folder of instance masks (labelsVal-instance-mask): F1 of the cells cannot be computed")
        return {}
    files = _files.list_files(folders[0], _INSTANCE_ENDINGS, "*")
    by_case: dict[str, Path] = {}
    for path in files:
        name = _files.stem_of(path, _INSTANCE_ENDINGS).removesuffix(INSTANCE_SUFFIX)
        if name in by_case:
            findings.error("several instance masks for one test image", f"{path.name} and {by_case[name].name}", name)
        by_case[name] = path
    for name in tests:
        if name not in by_case:
            findings.error(f"test image without an instance mask in {folders[0].name}", case=name)
    for name, path in by_case.items():
        if name not in tests:
            findings.warning("instance mask without a test image was left out", path.name)
    found = {name: by_case[name] for name in tests if name in by_case}
    findings.note(f"{len(found)} instance masks of test images go to {INSTANCES}Ts")
    return found
