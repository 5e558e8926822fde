"""ISIC 2017 and 2018 skin lesions: in VM-UNet's split, or as the ISIC archive hands them out.

VM-UNet's tree is `train|val/images|masks/`, 1500/650 (2017) and 1886/808 (2018) images.  The archive's is one folder
of `ISIC_0000000.jpg` and one of `ISIC_0000000_segmentation.png` for each of training, validation and test.
"""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from swin_umamba_nnunet.datasets import _files
from swin_umamba_nnunet.datasets._files import PartFolders
from swin_umamba_nnunet.datasets._keys import keys_of, match_masks
from swin_umamba_nnunet.datasets._labels import LabelRule
from swin_umamba_nnunet.datasets._model import Case, ConversionError, Finding, Part, Plan
from swin_umamba_nnunet.datasets._names import case_name
from swin_umamba_nnunet.datasets._picture_cases import PictureCases
from swin_umamba_nnunet.datasets._pictures import PICTURE_ENDINGS

THRESHOLD = 127  # masks are 0/255, some published copies of them JPEGs
PUBLISHED = {(1500, 650): "ISIC17", (1886, 808): "ISIC18"}  # (train, val) of VM-UNet
ValidationAs = Literal["fold0", "test"]

_ARCHIVE_IMAGES = re.compile(r"_(data|input)$", re.IGNORECASE)
_ARCHIVE_MASKS = re.compile(r"groundtruth$", re.IGNORECASE)
_NOT_TASK_1 = re.compile(r"part[23]|task[23]_", re.IGNORECASE)  # other tasks' ground truth lies beside it
_SUPERPIXELS = re.compile(r"_superpixels$", re.IGNORECASE)  # ISIC 2017 ships them among the images

EXPECTED = """the folders train/images, train/masks, val/images and val/masks (VM-UNet's tree), or the archive's own \
such as ISIC-2017_Training_Data and ISIC-2017_Training_Part1_GroundTruth"""


def plan_isic(source: Path, validation_as: ValidationAs = "fold0", exif: Literal["apply", "ignore"] = "ignore") -> Plan:
    """List the cases of an ISIC folder.

    Args:
        source: the folder.
        validation_as: "fold0" trains and validates on the source's own split as fold 0; "test" makes imagesTs and
            labelsTs of the validation images (VM-UNet's tables are validation figures, called test there).
        exif: see `PictureCases`; ISIC's masks fit the images as stored.

    Raises:
        ConversionError: the source is not laid out like that, or holds no images.
    """
    if validation_as not in get_args(ValidationAs):
        raise ConversionError(f"--val-as {validation_as}: fold0 or test is expected")
    source = _files.check_source(source)
    parts = _archive_parts(source) or _files.find_parts(source)
    if not parts:
        raise ConversionError(f"{source} does not look like ISIC: {EXPECTED} are expected in it")
    cases: list[Case] = []
    findings: list[Finding] = []
    for part in get_args(Part):
        if part in parts:
            listed, noticed = _cases_of(part, parts[part], source)
            cases += listed
            findings += noticed
    if not cases:
        raise ConversionError(f"{source} has the folders of ISIC, but no images in them ({', '.join(PICTURE_ENDINGS)})")
    findings += _compare_with_published(cases)
    findings += _check_names(cases)
    if validation_as == "test":
        cases = [replace(case, part="test") if case.part == "val" else case for case in cases]
    return Plan(
        layout="isic",
        source=source,
        cases=tuple(sorted(cases, key=lambda case: case.name)),
        handler=PictureCases(channels="rgb", exif=exif),
        labels=LabelRule(threshold=THRESHOLD, foreground="lesion"),
        description="ISIC skin lesion boundaries; dermoscopic images at their own size, masks cut at 127 of 255.",
        findings=tuple(findings),
    )


def _archive_parts(source: Path) -> dict[str, PartFolders]:
    """The archive's folders by the words in their names."""
    parts: dict[str, PartFolders] = {}
    folders = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    for part, word in (("train", "training"), ("val", "validation"), ("test", "test")):
        of_part = [folder for folder in folders if word in folder.name.lower()]
        images = [folder for folder in of_part if _ARCHIVE_IMAGES.search(folder.name)]
        masks = [f for f in of_part if _ARCHIVE_MASKS.search(f.name) and not _NOT_TASK_1.search(f.name)]
        if len(images) > 1 or len(masks) > 1:
            several = ", ".join(folder.name for folder in (images if len(images) > 1 else masks))
            raise ConversionError(f"{source} has several folders for {part}: {several}; give one year's at a time")
        if images:
            parts[part] = PartFolders(_inner(images[0]), _inner(masks[0]) if masks else None)
    return parts


def _inner(folder: Path) -> Path:
    """Unpacking a zip often puts a folder into a folder of the same name."""
    return folder / folder.name if (folder / folder.name).is_dir() else folder


def _cases_of(part: Part, folders: PartFolders, source: Path) -> tuple[list[Case], list[Finding]]:
    files = _files.list_files(folders.images, PICTURE_ENDINGS)
    files = [path for path in files if not _SUPERPIXELS.search(path.stem)]
    images, findings = _keys(folders.images, files, source, "image")
    masks: dict[str, Path] = {}
    if folders.masks is not None:
        masks, noticed = _keys(folders.masks, _files.list_files(folders.masks, PICTURE_ENDINGS), source, "mask")
        findings += noticed
    matched, spare = match_masks(images, masks)
    findings += [Finding("warning", "mask without an image was left out", str(masks[key])) for key in spare]
    cases = [Case(case_name(key), (path,), matched.get(key), part) for key, path in images.items()]
    return cases, findings


def _keys(base: Path, files: list[Path], source: Path, kind: str) -> tuple[dict[str, Path], list[Finding]]:
    return keys_of(_files.Selection(base, tuple(files)), PICTURE_ENDINGS, None, source, kind)


def _check_names(cases: list[Case]) -> list[Finding]:
    counts = Counter(case.name.casefold() for case in cases)
    return [
        Finding("error", "the same case name twice (in train and val?); rename one", str(case.images[0]), case.name)
        for case in cases
        if counts[case.name.casefold()] > 1
    ]


def _compare_with_published(cases: list[Case]) -> list[Finding]:
    counts = Counter(case.part for case in cases)
    found = (counts["train"], counts["val"])
    if found in PUBLISHED:
        return [
            Finding("note", f"{found[0]} training and {found[1]} validation images: VM-UNet's {PUBLISHED[found]} split")
        ]
    if not counts["val"]:
        return [Finding("note", "no validation folder: nnU-Net will draw five folds of its own")]
    known = ", ".join(f"{train}/{val} ({name})" for (train, val), name in PUBLISHED.items())
    text = f"{found[0]} training and {found[1]} validation images are not VM-UNet's split, {known}"
    return [Finding("warning", text + ": scores are not comparable with its figures")]
