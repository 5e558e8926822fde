"""The three datasets U-Mamba's authors publish in nnU-Net's layout: verified, repaired, completed.

What is repaired is dataset.json: U-Mamba's copy of 702 counts 60 training cases where 50 lie, and nnU-Net stops at
that.  What is completed is 703: the instance masks of its test images go where `swin-umamba evaluate` finds them.
Image and label files are copied byte for byte.
"""

from collections import defaultdict
from pathlib import Path

from swin_umamba_nnunet.datasets import _files
from swin_umamba_nnunet.datasets._copied import CopiedCases, find_instances
from swin_umamba_nnunet.datasets._labels import LabelEntry, LabelRule
from swin_umamba_nnunet.datasets._model import Case, ConversionError, Finding, Part, Plan
from swin_umamba_nnunet.datasets._picture_cases import PictureCases
from swin_umamba_nnunet.datasets._published import PUBLISHED, Published, judge_counts, repaired_json
from swin_umamba_nnunet.datasets._volumes import VolumeCases


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
    findings += judge_counts(cases, known, allow_incomplete)
    labels, channels, noticed = repaired_json(source / "dataset.json", known, sum(c.part == "train" for c in cases))
    findings += noticed
    instances: dict[str, Path] = {}
    if known.instances:
        instances, noticed = find_instances(source, [case.name for case in cases if case.part == "test"])
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
