"""What is known of the datasets U-Mamba's authors publish, and how a copy is held against it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swin_umamba_nnunet.datasets._model import Case, Finding

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


def judge_counts(cases: Sequence[Case], known: Published, allow_incomplete: bool) -> list[Finding]:
    """Findings where a copy has other numbers of cases than were published."""
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


def repaired_json(
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
